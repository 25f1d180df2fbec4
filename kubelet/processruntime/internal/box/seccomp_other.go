//go:build linux && !amd64

package box

func addArchCalls(map[uint32]int) {}
