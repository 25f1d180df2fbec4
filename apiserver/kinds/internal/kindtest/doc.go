// Package kindtest checks declarations of kinds: in form, and on random objects.
package kindtest
