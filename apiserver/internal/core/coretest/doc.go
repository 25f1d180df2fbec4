// Package coretest has what tests of the typed core and of what is built on it share: a few small kinds of every
// sort, and a core that runs as long as a test.
package coretest
