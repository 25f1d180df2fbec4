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

func appendResources(to []byte, r *scheduler.Resources) []byte {
	for name, n := range r.All() {
		to = appendStrings(to, string(name))
		to = binary.AppendVarint(to, n)
	}
	return append(to, 0) // no name is empty
}
