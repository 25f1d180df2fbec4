//go:build !linux

package machine

import "runtime"

func (i *Info) read(string) { i.OSImage = runtime.GOOS }
