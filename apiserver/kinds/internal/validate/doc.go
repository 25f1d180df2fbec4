// Package validate holds the checks that the kinds of several API groups share. Every check appends to an Errors,
// with the path, type and message that kube-apiserver answers.
package validate
