// Package podlogs reads and rotates container logs in CRI's format: lines of "TIME STREAM TAG TEXT", TAG being F for a whole line and
// P for a part of one. A rotated log is NAME.YYYYMMDD-HHMMSS, compressed unless it is the newest.
package podlogs
