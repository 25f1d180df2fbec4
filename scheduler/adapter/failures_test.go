package adapter

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

// TestFailures: the latest are remembered, and not too many.
func TestFailures(t *testing.T) {
	var f failures
	uid := func(i int) types.UID { return types.UID(fmt.Sprint(i)) }
	const many = 10 * maxFailures
	for i := range many {
		f.add(uid(i))
	}
	if n := len(f.now) + len(f.before); n > 2*maxFailures {
		t.Errorf("%d are remembered", n)
	}
	if !f.has(uid(many-1)) || !f.has(uid(many-maxFailures)) || f.has(uid(0)) {
		t.Error("not the latest ones")
	}
	if f.remove(uid(many - 1)); f.has(uid(many - 1)) {
		t.Error("it is remembered, though it was removed")
	}
}
