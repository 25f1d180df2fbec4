package robustness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/tests/v3/robustness/client"
	"go.etcd.io/etcd/tests/v3/robustness/identity"
	"go.etcd.io/etcd/tests/v3/robustness/model"
	"go.etcd.io/etcd/tests/v3/robustness/report"
	"go.etcd.io/etcd/tests/v3/robustness/traffic"
	"go.etcd.io/etcd/tests/v3/robustness/validate"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/keelson/keelson/internal/interop/stock"
	"github.com/keelson/keelson/store/boltstore"
	"github.com/keelson/keelson/store/etcdserve"
	"github.com/keelson/keelson/store/etcdserve/etcdservetest"
)

// childEnv makes the test binary a server of the bolt file that it names, at the address in the variable behind it.
const (
	childEnv   = "KEELSON_ROBUSTNESS_CHILD"
	addressEnv = "KEELSON_ROBUSTNESS_ADDRESS"
)

func TestMain(m *testing.M) {
	if file := os.Getenv(childEnv); file != "" {
		if err := child(file, os.Getenv(addressEnv)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func child(file, address string) (err error) {
	s, err := boltstore.Open(file, boltstore.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	stop, err := writeHistory(s, file+".history")
	if err != nil {
		return err
	}
	defer stop()
	leases, err := boltstore.Open(file+".leases", boltstore.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leases.Close()) }()
	srv, err := etcdserve.New(s, etcdserve.Options{ProgressInterval: 100 * time.Millisecond, Leases: leases})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("serving")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return srv.Serve(ctx, l)
}

// process is a server of a bolt file in a process of its own.
type process struct {
	file, address string
	cmd           *exec.Cmd
	in            io.Closer
}

func (p *process) start() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	p.cmd = exec.Command(exe)
	p.cmd.Env = append(os.Environ(), childEnv+"="+p.file, addressEnv+"="+p.address)
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	late := time.AfterFunc(30*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "serving" {
		return fmt.Errorf("the server does not start: %q, %w", line, err)
	}
	return nil
}

// kill ends the server at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.in.Close()
}

const (
	// trafficTime bounds how long there is traffic, if there are faults, or revisions, not fast enough.
	trafficTime = 50 * time.Second
	compactions = 300 * time.Millisecond
)

// grown waits until the revision is at least rev, and returns what it is.
func grown(ctx context.Context, url string, rev int64) (now int64) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop()})
	if err != nil {
		return 0
	}
	defer c.Close()
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		res, err := c.Get(attempt, "any")
		cancel()
		if err == nil {
			if now = res.Header.Revision; now >= rev {
				return now
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return now
}

func traffics() map[string]traffic.Traffic {
	return map[string]traffic.Traffic{
		"etcd": traffic.EtcdPutDeleteLease, "kubernetes": traffic.Kubernetes, "kubernetes creates and deletes": traffic.KubernetesCreateDelete,
	}
}

// A server that is killed again and again.
func TestKilled(t *testing.T) {
	for name, tf := range traffics() {
		for _, compact := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/compact=%v", name, compact), func(t *testing.T) {
				// The more answers are lost the longer the check takes, so there are histories about which it finds nothing in time.
				for range 3 {
					if testKilled(t, tf, compact) {
						return
					}
				}
				t.Error("no history could be checked in time")
			})
		}
	}
}

// testKilled reports whether the history could be checked in time.
func testKilled(t *testing.T, tf traffic.Traffic, compact bool) bool {
	p := &process{file: filepath.Join(t.TempDir(), "store"), address: fmt.Sprintf("127.0.0.1:%d", stock.FreePort(t))}
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	killed, kills, every, url := 0, 9, 500*time.Millisecond, "http://"+p.address
	if compact {
		kills, every = 3, 1500*time.Millisecond // each compaction whose answer is lost makes the check longer
	}
	reports := run(t, url, tf, compact, func(ctx context.Context) {
		rev := int64(1)
		for range kills {
			time.Sleep(every)
			if rev = grown(ctx, url, rev+12); ctx.Err() != nil {
				return
			}
			p.kill()
			if err := p.start(); err != nil {
				t.Error(err)
				return
			}
			killed++
		}
	})
	p.kill()
	// What the last server has committed, and not written to the history any more.
	s, err := boltstore.Open(p.file, boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	stop, err := writeHistory(s, p.file+".history")
	if err != nil {
		t.Fatal(err)
	}
	stop()
	all, err := readHistory(p.file + ".history")
	if err != nil {
		t.Fatal(err)
	}
	if killed < kills {
		t.Errorf("it was killed only %d times of %d", killed, kills)
	}
	return check(t, tf, reports, requests(all, reports))
}

// A server that goes on, while history is compacted.
func TestCompacted(t *testing.T) {
	for name, tf := range traffics() {
		t.Run(name, func(t *testing.T) { testCompacted(t, tf) })
	}
}

func testCompacted(t *testing.T, tf traffic.Traffic) {
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "store"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	file := filepath.Join(t.TempDir(), "history")
	stop, err := writeHistory(s, file)
	if err != nil {
		t.Fatal(err)
	}
	url, stopServer := etcdservetest.Serve(t, s, etcdserve.Options{ProgressInterval: 100 * time.Millisecond})
	reports := run(t, url, tf, true, func(ctx context.Context) {
		time.Sleep(10 * compactions)
		grown(ctx, url, 150)
	})
	stopServer()
	stop()
	all, err := readHistory(file)
	if err != nil {
		t.Fatal(err)
	}
	if !check(t, tf, reports, requests(all, reports)) {
		t.Error("the history could not be checked in time")
	}
}

// run lets clients make requests, and watch, while faults runs, and returns what they have seen.
func run(t *testing.T, endpoint string, tf traffic.Traffic, compact bool, faults func(context.Context)) []report.ClientReport {
	t.Helper()
	endpoints, lg := []string{endpoint}, zap.NewNop()
	ids := identity.NewIDProvider()
	set := client.NewSet(ids, time.Now())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := traffic.CheckEmptyDatabaseAtStart(ctx, lg, endpoints, set); err != nil {
		t.Fatal(err)
	}
	load, watches := traffic.KeyValueVeryLow, traffic.WatchDefault
	limiter := rate.NewLimiter(rate.Limit(load.MaximalQPS), load.BurstableQPS)
	keys, storage, finish := traffic.NewKeyStore(10, "key"), traffic.NewKubernetesStorage(), make(chan struct{})
	var wg sync.WaitGroup
	err := traffic.SimulateKeyValueTraffic(ctx, &wg, &load, endpoints, set, tf, traffic.RunTrafficLoopParam{
		QPSLimiter: limiter, IDs: ids, LeaseIDStorage: identity.NewLeaseIDStorage(),
		NonUniqueRequestConcurrencyLimiter: traffic.NewConcurrencyLimiter(load.MaxNonUniqueRequestConcurrency),
		KeyStore:                           keys, Storage: storage, Finish: finish,
	})
	if err == nil {
		err = traffic.SimulateWatchTraffic(ctx, &wg, &watches, endpoints, set, tf, traffic.RunWatchLoopParam{
			Config: watches, QPSLimiter: limiter, KeyStore: keys, Storage: storage, Finish: finish, Logger: lg,
		})
	}
	if err == nil && compact {
		err = traffic.SimulateCompactionTraffic(ctx, &wg, &traffic.Compaction{Period: compactions}, endpoints, set, tf,
			traffic.RunCompactLoopParam{Period: compactions, Finish: finish})
	}
	if err != nil {
		t.Fatal(err)
	}
	working, stop := context.WithTimeout(ctx, trafficTime)
	faults(working)
	stop()
	close(finish)
	wg.Wait()
	// The checker needs a last write that has succeeded.
	c, err := set.NewClient(endpoints)
	if err != nil {
		t.Fatal(err)
	}
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := c.Put(attempt, "tombstone", "true")
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	return set.Reports()
}

// check reports whether there was time enough to say whether the history is right.
func check(t *testing.T, tf traffic.Traffic, reports []report.ClientReport, persisted []model.EtcdRequest) (conclusive bool) {
	t.Helper()
	done, failed, events := 0, 0, 0
	var compactions []model.EtcdRequest
	for _, r := range reports {
		events += r.WatchEventCount()
		for _, op := range r.KeyValue {
			if op.Output.(model.MaybeEtcdResponse).Error == "" {
				done++
				continue
			}
			failed++
			// One whose answer is lost may have happened; without this the checker believes that it has not.
			if in := op.Input.(model.EtcdRequest); in.Type == model.Compact && len(persisted) > 0 {
				compactions = append(compactions, in)
			}
		}
	}
	result := validate.ValidateAndReturnVisualize(zap.NewNop(), validate.Config{ExpectRevisionUnique: tf.ExpectUniqueRevision()},
		reports, append(persisted, compactions...), time.Minute)
	status := result.Linearization.Status
	conclusive = status != validate.Timeout && status != validate.DeadlineExceeded
	if err := result.Error(); err != nil && conclusive {
		t.Error(err)
	}
	if done < 100 || events < 100 {
		t.Errorf("there have been only %d requests and %d events", done, events)
	}
	t.Logf("%d requests, %d failed, %d revisions, %d events; linearization: %v, watches: %v, old reads: %v",
		done, failed, len(persisted), events, status, result.Watch.Status, result.Serializable.Status)
	return conclusive
}
