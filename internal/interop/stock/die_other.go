//go:build unix && !linux

package stock

import "syscall"

func dieWithParent() *syscall.SysProcAttr { return nil }
