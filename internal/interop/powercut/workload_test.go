package powercut

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/boltstore"
)

// childEnv makes the test binary a process that works on stores: the one that serves their file system cannot
// be the one that maps their files.
const childEnv = "KEELSON_POWERCUT_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		serve()
		return
	}
	goleak.VerifyTestMain(m)
}

const logBytes = 64 << 10

func options() boltstore.Options { return boltstore.Options{History: 100, LogBytes: logBytes} }

// session is what a process is to do with a store.
type session struct {
	Dir, Tag string
	Seed     uint64
	Commits  int
	Clients  int
	Large    bool // values that fill the log fast
	Relaxed  bool // some keys are
	Lie      bool // all keys are, but nobody says so
	Pause    bool // long enough in the middle for the file to be brought up to date
	Kill     bool // end without Close
	Twice    bool // open and write once more afterwards
}

// serve does the sessions that it reads.
func serve() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var s session
		if err := json.Unmarshal(in.Bytes(), &s); err != nil {
			panic(err)
		}
		if err := s.run(); err != nil {
			fmt.Println("error", err)
		} else {
			fmt.Println("done")
		}
	}
}

func (s session) run() error {
	f, err := os.OpenFile(filepath.Join(s.Dir, notesFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	write := func(n note) {
		b, err := json.Marshal(n)
		if err != nil {
			panic(err)
		}
		if _, err := f.Write(append(b, '\n')); err != nil {
			panic(err)
		}
	}
	if err := s.work(write); err != nil || !s.Twice {
		return err
	}
	s.Tag, s.Commits = s.Tag+"b", 6
	return s.work(write)
}

func (s session) work(write func(note)) error {
	opts := options()
	if s.Relaxed {
		opts.RelaxedPrefixes, opts.RelaxedDelay = []string{"r"}, 2*time.Millisecond
	}
	if s.Lie {
		opts.RelaxedPrefixes, opts.RelaxedDelay = []string{"k", "r"}, 20*time.Millisecond
	}
	ctx := context.Background()
	st, err := boltstore.Open(filepath.Join(s.Dir, "s"), opts)
	if err != nil {
		write(note{What: "broken", Err: err.Error()})
		return nil
	}
	if err := seen(ctx, st, write); err != nil {
		return err
	}
	var done atomic.Int64
	var wg sync.WaitGroup
	for c := range s.Clients {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(s.Seed, uint64(c)))
			for i := 0; ; i++ {
				n := done.Add(1)
				if n > int64(s.Commits) {
					return
				}
				if s.Pause && n == int64(s.Commits/2) {
					time.Sleep(1300 * time.Millisecond)
				}
				s.commit(ctx, st, r, fmt.Sprintf("%s-%d-%d", s.Tag, c, i), write)
				if r.IntN(60) == 0 {
					if rev, _, err := st.Revision(ctx); err == nil {
						if rev = max(1, rev-int64(r.IntN(30))); st.Compact(ctx, rev) == nil {
							write(note{What: "compacted", Rev: rev})
						}
					}
				}
			}
		})
	}
	if s.Kill {
		for done.Load() < int64(s.Commits)-5 {
			time.Sleep(100 * time.Microsecond)
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	wg.Wait()
	if err := st.Close(); err != nil {
		write(note{What: "close", Err: err.Error()})
	}
	return nil
}

// seen notes the commits that are there already.
func seen(ctx context.Context, st *boltstore.Store, write func(note)) error {
	current, floor, err := st.Revision(ctx)
	if err != nil || current == floor {
		return err
	}
	w, err := st.Watch(ctx, store.WatchOptions{After: floor})
	if err != nil {
		return err
	}
	defer w.Close()
	for reached := floor; reached < current; {
		b, err := w.Next(ctx)
		if err != nil {
			return err
		}
		last := int64(0)
		for _, e := range b.Events {
			if id, _, ok := strings.Cut(string(e.KV.Value), ":"); ok && e.KV.ModRevision != last {
				last = e.KV.ModRevision
				write(note{What: "seen", ID: id, Rev: last})
			}
		}
		reached = b.Revision
	}
	return nil
}

func (s session) commit(ctx context.Context, st *boltstore.Store, r *rand.Rand, id string, write func(note)) {
	n := note{What: "try", ID: id, Puts: map[string]string{}}
	relaxed := s.Relaxed && r.IntN(2) == 0
	size := 300
	if s.Large {
		size = 9000
	}
	var ops []store.Op
	for i, k := range r.Perm(10)[:1+r.IntN(4)] {
		key := fmt.Sprint("k", k)
		if relaxed {
			key = fmt.Sprint("r", k)
		}
		if i > 0 && r.IntN(3) == 0 {
			n.Dels = append(n.Dels, key)
			ops = append(ops, store.Delete(key, store.Any()))
			continue
		}
		v := id + ":" + strings.Repeat(string(rune('a'+k)), r.IntN(size))
		n.Puts[key] = v
		ops = append(ops, store.Put(key, []byte(v), store.Any()))
	}
	write(n)
	rev, err := st.Commit(ctx, ops...)
	switch {
	case err == nil && relaxed:
		write(note{What: "relaxed", ID: id, Rev: rev})
	case err == nil:
		write(note{What: "ok", ID: id, Rev: rev})
	case errors.Is(err, store.ErrUnknownOutcome):
		write(note{What: "unknown", ID: id, Err: err.Error()})
	default:
		write(note{What: "failed", ID: id, Err: err.Error()})
	}
}

// worker is a process that does sessions.
type worker struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *bufio.Scanner
}

func newWorker(t *testing.T) *worker {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w := &worker{cmd, json.NewEncoder(in), bufio.NewScanner(out)}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	return w
}

// do has the session done and returns when it is, or when it has killed its process.
func (w *worker) do(s session) error {
	if err := w.in.Encode(s); err != nil {
		return err
	}
	if w.out.Scan() {
		if line := w.out.Text(); line != "done" {
			return errors.New(line)
		}
		return nil
	}
	if s.Kill {
		return nil
	}
	return errors.New("the process has ended")
}
