package plugins

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/keelson/keelson/scheduler"
)

func appendStrings(to []byte, ss ...string) []byte {
	for _, s := range ss {
		to = binary.AppendUvarint(to, uint64(len(s)))
		to = append(to, s...)
	}
	return to
}

func appendMap(to []byte, m map[string]string) []byte {
	to = binary.AppendUvarint(to, uint64(len(m)))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		to = appendStrings(to, k, m[k])
	}
	return to
}

func appendResources(to []byte, r scheduler.Resources) []byte {
	to = binary.AppendUvarint(to, uint64(len(r)))
	for _, k := range slices.Sorted(maps.Keys(r)) {
		to = appendStrings(to, string(k))
		to = binary.AppendVarint(to, r[k])
	}
	return to
}
