package boltstore

import (
	"errors"
	"os"
	"syscall"
)

// syncData makes what was written to f durable, but not its times.
func syncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return wrapSync(f, err)
		}
	}
}

func wrapSync(f *os.File, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
}
