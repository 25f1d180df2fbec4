package job

import (
	"math/bits"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// indexes is a set of completion indexes below a limit.
type indexes struct {
	limit int
	words []uint64
}

func newIndexes(limit int) *indexes {
	return &indexes{limit: limit, words: make([]uint64, (limit+63)/64)}
}

// parseIndexes reads the form of status.completedIndexes, such as "1,3-5,7".
// What is malformed or not below the limit is left out.
func parseIndexes(s string, limit int) *indexes {
	x := newIndexes(limit)
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		if err != nil {
			continue
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(to); err != nil {
				continue
			}
		}
		for i := a; i <= b && i < limit; i++ {
			x.add(i)
		}
	}
	return x
}

func (x *indexes) has(i int) bool {
	return x != nil && i >= 0 && i < x.limit && x.words[i/64]&(1<<(i%64)) != 0
}

func (x *indexes) add(i int) {
	if i >= 0 && i < x.limit {
		x.words[i/64] |= 1 << (i % 64)
	}
}

func (x *indexes) len() (n int) {
	if x == nil {
		return 0
	}
	for _, w := range x.words {
		n += bits.OnesCount64(w)
	}
	return n
}

func (x *indexes) clone() *indexes {
	return &indexes{limit: x.limit, words: slices.Clone(x.words)}
}

// String writes the form that parseIndexes reads.
func (x *indexes) String() string {
	var b strings.Builder
	for i := 0; i < x.limit; i++ {
		if !x.has(i) {
			continue
		}
		start := i
		for x.has(i + 1) {
			i++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(start))
		if i > start {
			sep := byte('-')
			if i == start+1 {
				sep = ','
			}
			b.WriteByte(sep)
			b.WriteString(strconv.Itoa(i))
		}
	}
	return b.String()
}

// indexOf returns a pod's completion index, or -1.
func indexOf(p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// failuresOf returns how often a pod's index had failed before it, and how
// often a failure was ignored.
func failuresOf(p *corev1.Pod) (counted, ignored int) {
	counted, _ = strconv.Atoi(p.Annotations[batchv1.JobIndexFailureCountAnnotation])
	ignored, _ = strconv.Atoi(p.Annotations["batch.kubernetes.io/job-index-ignored-failure-count"])
	return max(0, counted), max(0, ignored)
}
