//go:build !linux

package kubelet

import "runtime"

const hostOS = runtime.GOOS

func fsUsage(string) (used, total uint64) { return 0, 0 }
