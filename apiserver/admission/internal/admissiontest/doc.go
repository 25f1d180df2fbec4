// Package admissiontest makes clients and requests for the tests of admission plugins.
package admissiontest
