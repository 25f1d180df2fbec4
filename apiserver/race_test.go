//go:build race

package apiserver_test

// raceDetector slows everything down several times.
const raceDetector = true
