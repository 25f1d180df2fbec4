package etcdserve

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keelson/keelson/internal/interop/stock"
	"github.com/keelson/keelson/store/memstore"
)

// built is where the command is put that storectl builds.
var built string

// storectl builds the command once and returns its path.
var storectl = sync.OnceValues(func() (string, error) {
	path := filepath.Join(built, "storectl")
	out, err := exec.Command("go", "build", "-o", path, "github.com/keelson/keelson/examples/storectl").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build storectl: %w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	var err error
	if built, err = os.MkdirTemp("", "storectl"); err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	_ = os.RemoveAll(built)
	os.Exit(code)
}

// process is "storectl serve" of a bolt file.
type process struct {
	url, file, address string

	mu  sync.Mutex
	cmd *exec.Cmd
}

// serveBolt starts a server of a new file.
func serveBolt(t testing.TB) *process {
	t.Helper()
	p := &process{file: filepath.Join(t.TempDir(), "store"), address: fmt.Sprintf("127.0.0.1:%d", stock.FreePort(t))}
	p.url = "http://" + p.address
	t.Cleanup(p.kill)
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	exe, err := storectl()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, "serve", "-store", "bolt="+p.file, "-listen", p.address)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd = cmd
	late := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "serving "+p.url {
		return fmt.Errorf("the server does not start: %q, %w", line, err)
	}
	return nil
}

// kill ends the server at once.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.cmd = nil
}

func newMem(t testing.TB) *memstore.Store {
	t.Helper()
	s, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
