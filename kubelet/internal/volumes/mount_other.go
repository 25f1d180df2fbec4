//go:build !linux

package volumes

import (
	"errors"
	"os"
)

const nonBlock = 0

func isMountPoint(string) (bool, error) { return false, nil }

func mountTmpfs(string, int64) error { return errors.ErrUnsupported }

func pin(*os.File, string) (bool, error) { return false, nil }

func unmountAll(string) error { return nil }
