// Package defaulttolerationseconds is the admission plugin DefaultTolerationSeconds: pods that say nothing else stay for five minutes on a
// node that is not ready or unreachable.
package defaulttolerationseconds
