//go:build linux

package processruntime

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/processruntime/internal/shim"
)

func TestUnenforcedOOMScore(t *testing.T) {
	r := &Runtime{level: shim.LevelNamespaces, lowestOOM: 0}
	for score, want := range map[int64][]string{-997: {"an out-of-memory score this low"}, 0: nil, 1000: nil} {
		c := &runtimeapi.ContainerConfig{Linux: &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{OomScoreAdj: score}}}
		if diff := cmp.Diff(want, r.Unenforced(nil, c)); diff != "" {
			t.Errorf("score %d (-want +got):\n%s", score, diff)
		}
	}
}

func TestLowestOOM(t *testing.T) {
	p := exec.CommandContext(t.Context(), "sleep", "60")
	if err := p.Start(); err != nil {
		t.Skipf("no process to try on: %v", err)
	}
	defer func() {
		_ = p.Process.Kill()
		_ = p.Wait()
	}()
	file := fmt.Sprintf("/proc/%d/oom_score_adj", p.Process.Pid)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lowest := lowestOOM(p.Process.Pid)
	if have, err := strconv.ParseInt(strings.TrimSpace(string(before)), 10, 64); err != nil || lowest > have || lowest < -1000 {
		t.Fatalf("lowest is %d of a process that had %d (%v)", lowest, have, err)
	}
	write := func(score int64) error { return os.WriteFile(file, []byte(strconv.FormatInt(score, 10)), 0) }
	if err := write(lowest); err != nil {
		t.Errorf("the lowest score %d: %v", lowest, err)
	}
	if lowest > -1000 {
		if err := write(lowest - 1); !errors.Is(err, os.ErrPermission) {
			t.Errorf("below the lowest score %d: %v", lowest, err)
		}
	}
}
