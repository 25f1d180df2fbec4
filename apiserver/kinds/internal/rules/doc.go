// Package rules has the validation rules that kinds of several API groups share, with the messages of kube-apiserver.
// Its functions return the mistakes of one value at one path, never modify it, and keep no state.
package rules
