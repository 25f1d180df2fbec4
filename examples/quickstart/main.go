// Quickstart is Keelson's front door: one command that needs nothing but Go.
//
//	go run ./examples/quickstart
//
// It starts a cluster, runs three replicas of a small web server behind a Service, calls it, and stays up for kubectl until Ctrl-C.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/examples/internal/compose"
	"github.com/keelson/keelson/kubelet/processruntime"
	"github.com/keelson/keelson/kubelet/processruntime/image"
	"github.com/keelson/keelson/store/boltstore"
)

const imageName = "keelson.example/hello:v1"

func main() {
	if processruntime.Init() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := quickstart
	if len(os.Args) > 1 && os.Args[1] == "hello" { // inside the image made from this binary
		run = hello
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func quickstart(ctx context.Context) (err error) {
	compose.LibrariesLog(logr.Discard())
	p := newProgress(os.Stdout)
	dir, err := os.MkdirTemp("", "keelson-quickstart-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p.step("starting a cluster on boltstore")
	s, err := boltstore.Open(filepath.Join(dir, "state.db"), boltstore.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	c, err := compose.New(compose.Options{Store: s, Dir: dir, Nodes: 1, KillPods: true, Logger: logr.Discard()})
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	img, err := image.FromBinary(self, image.Options{Path: "/hello", Args: []string{"hello"}})
	if err != nil {
		return err
	}
	c.Import(imageName, img)

	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { cancel(c.Run(ctx)) })
	err = show(ctx, c, dir, p)
	if err == nil {
		<-ctx.Done()
		fmt.Println("\nstopping: pods, cluster and files go")
	}
	failed := context.Cause(ctx)
	cancel(nil)
	wg.Wait()
	if failed != nil && !errors.Is(failed, context.Canceled) {
		return failed
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// show deploys, follows and calls the example workload.
func show(ctx context.Context, c *compose.Cluster, dir string, p *progress) error {
	if err := c.Server.WaitReady(ctx); err != nil {
		return err
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := c.Server.WriteKubeconfig(kubeconfig, apiserver.Admin); err != nil {
		return err
	}
	p.done("API server at " + c.Server.URL())
	p.step("making an image of this program and starting a node")
	select {
	case <-c.Started():
	case <-ctx.Done():
		return ctx.Err()
	}
	p.done("isolation of pods here: " + c.Isolation())
	api := c.Server.Client(apiserver.Admin)
	for _, obj := range workload() {
		if err := api.Create(ctx, obj); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("the pods did not become ready in 3 minutes; see kubectl describe pods"))
	defer cancel()
	if err := follow(ctx, api, p); err != nil {
		return err
	}
	if err := call(ctx, api, p); err != nil {
		return err
	}
	fmt.Printf(`
The cluster is yours until Ctrl-C. In another terminal:

export KUBECONFIG=%s
kubectl get pods -o wide
kubectl logs -f deploy/hello
kubectl scale deploy/hello --replicas=5
`, kubeconfig)
	return nil
}
