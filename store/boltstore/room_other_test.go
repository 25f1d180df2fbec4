//go:build !linux

package boltstore

import "errors"

const canLimitFiles = false

func limitFiles(uint64) error { return errors.ErrUnsupported }
