package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/scheduler"
)

// shownNodes bounds the list of nodes.
const shownNodes = 15

// whatIf says whether that many pods like this would fit, and where. Nothing changes, not even in the engine.
func whatIf(out io.Writer, engine *scheduler.Engine, pod *corev1.Pod, count int) {
	pods := make([]*scheduler.Pod, count)
	for i := range pods {
		p := pod.DeepCopy()
		p.Name, p.UID = fmt.Sprint(pod.Name, "-", i), types.UID(fmt.Sprint("what-if-", i))
		pods[i] = scheduler.NewPod(p)
	}
	on := map[string]int{}
	fit := 0
	var short *scheduler.Decision
	for _, d := range engine.Fit(pods) {
		if d.Fits() {
			fit++
			on[d.Node]++
		} else if short == nil {
			short = &d
		}
	}
	fmt.Fprintf(out, "What if %d of these came now? %d would fit", count, fit)
	if short != nil {
		fmt.Fprintf(out, "; the next would wait: %s", short.Message())
	}
	fmt.Fprintln(out)
	names := slices.SortedFunc(maps.Keys(on), func(a, b string) int {
		return cmp.Or(cmp.Compare(on[b], on[a]), cmp.Compare(a, b))
	})
	for i, name := range names {
		if i == shownNodes {
			fmt.Fprintf(out, "  and on %d more nodes\n", len(names)-i)
			break
		}
		fmt.Fprintf(out, "  %4d on %s\n", on[name], name)
	}
}
