package objectcache

import (
	"encoding/binary"
	"math/bits"
	"strconv"
)

// Stored messages have no resourceVersion. What is sent differs from what is stored by nothing else, so it is
// made by splicing: every message of Kubernetes has its ObjectMeta as field 1, in which
// resourceVersion is field 6, after the fields 1 to 5.
const (
	tagMetadata        = 1<<3 | 2
	tagResourceVersion = 6<<3 | 2
)

func appendUvarint(dst []byte, v uint64) []byte { return binary.AppendUvarint(dst, v) }

func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// appendWithVersion appends raw's length and raw with its resourceVersion replaced.
func appendWithVersion(dst, raw []byte, rev int64) ([]byte, bool) {
	if len(raw) == 0 || raw[0] != tagMetadata {
		return dst, false
	}
	metaLen, n := binary.Uvarint(raw[1:])
	if n <= 0 || uint64(len(raw)-1-n) < metaLen {
		return dst, false
	}
	start := 1 + n
	meta := raw[start : start+int(metaLen)]
	rest := raw[start+int(metaLen):]

	// before: fields 1 to 5; after: behind an existing field 6.
	before := 0
	for before < len(meta) && meta[before] < tagResourceVersion && meta[before]&7 == 2 {
		l, n := binary.Uvarint(meta[before+1:])
		if n <= 0 || uint64(len(meta)-before-1-n) < l {
			return dst, false
		}
		before += 1 + n + int(l)
	}
	after := before
	if before < len(meta) && meta[before] == tagResourceVersion {
		l, n := binary.Uvarint(meta[before+1:])
		if n <= 0 || uint64(len(meta)-before-1-n) < l {
			return dst, false
		}
		after += 1 + n + int(l)
	}
	var num [20]byte
	rv := strconv.AppendInt(num[:0], rev, 10)
	newMeta := uint64(before + 2 + len(rv) + len(meta) - after)
	total := 1 + uvarintLen(newMeta) + int(newMeta) + len(rest)

	dst = appendUvarint(dst, uint64(total))
	dst = append(dst, tagMetadata)
	dst = appendUvarint(dst, newMeta)
	dst = append(dst, meta[:before]...)
	dst = append(dst, tagResourceVersion, byte(len(rv)))
	dst = append(dst, rv...)
	dst = append(dst, meta[after:]...)
	return append(dst, rest...), true
}

// rawMessage returns the message inside a stored envelope, nil if value isn't one or is encoded in another way.
func rawMessage(value []byte) []byte {
	if len(value) < 4 || string(value[:4]) != "k8s\x00" {
		return nil
	}
	p := value[4:]
	for len(p) > 0 {
		tag := p[0]
		l, n := binary.Uvarint(p[1:])
		if tag&7 != 2 || n <= 0 || uint64(len(p)-1-n) < l {
			return nil
		}
		body := p[1+n : 1+n+int(l)]
		if tag == 2<<3|2 {
			if len(body) == 0 || body[0] != tagMetadata {
				return nil
			}
			return body
		}
		p = p[1+n+int(l):]
	}
	return nil
}
