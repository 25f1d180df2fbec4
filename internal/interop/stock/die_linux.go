package stock

import "syscall"

// dieWithParent lets nothing survive a test process that is killed.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
