package kubectl

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKill kills allinone at random moments, under writes: what was acknowledged is there after the restart, and pods that ran are adopted, not
// started again.
func TestKill(t *testing.T) {
	c := start(t)
	c.k(t, "run steady --image="+c.image+" --restart=Always --command -- ticker", "created")
	c.k(t, "wait pod/steady --for=condition=Ready --timeout=60s", "met")
	id := c.k(t, "get pod steady -o jsonpath={.status.containerStatuses[0].containerID}")
	pids := running(t, "ticker")
	var acknowledged []string
	for round := range 4 {
		stop := make(chan struct{})
		var mu sync.Mutex
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					name := fmt.Sprintf("cm-%d-%d-%d", round, w, i)
					if _, err := c.try("", "create", "cm", name, "--from-literal=a=b"); err == nil {
						mu.Lock()
						acknowledged = append(acknowledged, name)
						mu.Unlock()
					}
				}
			})
		}
		time.Sleep(500*time.Millisecond + time.Duration(rand.IntN(1500))*time.Millisecond)
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.cmd.Wait()
		close(stop)
		wg.Wait()
		c.run()
		out := c.k(t, "get cm -o name")
		for _, name := range acknowledged {
			if !strings.Contains(out, "configmap/"+name+"\n") {
				t.Errorf("round %d: %s was acknowledged and is gone", round, name)
			}
		}
	}
	if len(acknowledged) == 0 {
		t.Error("nothing was written")
	}
	c.k(t, "wait pod/steady --for=condition=Ready --timeout=60s", "met")
	if now := c.k(t, "get pod steady -o jsonpath={.status.containerStatuses[0].containerID}"); now != id {
		t.Errorf("the container is %s, was %s", now, id)
	}
	if now := running(t, "ticker"); now != pids {
		t.Errorf("processes %s, were %s", now, pids)
	}
	c.k(t, "logs steady --tail=1", "tick")
	c.k(t, "exec steady -- echo adopted", "adopted")
}

func running(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("pgrep", "-x", name).Output()
	if err != nil {
		t.Fatalf("pgrep %s: %v", name, err)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}
