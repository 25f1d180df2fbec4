// Allinone is a whole cluster in one process, for daily use.
//
//	allinone -data-dir ./cluster -nodes 2
//
// It prints "ready kubeconfig=FILE" once it serves; with join.kubeconfig in the data directory, example node joins from another host; SIGTERM or Ctrl-C stops it. With the same data directory it comes back with everything it had.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-logr/logr"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/examples/internal/compose"
	"github.com/keelson/keelson/kubelet/processruntime"
	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/boltstore"
	"github.com/keelson/keelson/store/etcdstore"
	"github.com/keelson/keelson/store/memstore"
)

func main() {
	if processruntime.Init() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "allinone:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("allinone", flag.ContinueOnError)
	dir := fs.String("data-dir", "keelson-data", "directory of the cluster's data")
	storeFlag := fs.String("store", "bolt", "memory, bolt (a file in the data directory), or etcd=URL,…")
	listen := fs.String("listen", "127.0.0.1:6443", "address the API server listens on")
	kubeconfig := fs.String("kubeconfig", "", "where to write the administrator's kubeconfig (default DATA-DIR/kubeconfig)")
	nodes := fs.Int("nodes", 1, "how many nodes this process runs; 0 for none")
	runtime := fs.String("runtime", "auto", "auto, process, cri=SOCKET or fake")
	proxy := fs.String("proxy", "auto", "auto, nft, user or none")
	scheduler := fs.Bool("scheduler", true, "run the scheduler")
	controllers := fs.Bool("controllers", true, "run the controllers")
	admissionOff := fs.String("admission-off", "", "admission plugins to leave out, NAME,…")
	grace := fs.Duration("node-monitor-grace-period", 0, "how long a node may show no life before its pods are replaced (default 50s)")
	verbose := fs.Int("v", 0, "log level; 0 logs errors and what is worth knowing")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see -help", fs.Arg(0))
	}
	data, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	s, err := openStore(ctx, *storeFlag, data)
	if err != nil {
		return fmt.Errorf("-store %s: %w", *storeFlag, err)
	}
	defer s.Close()
	o := compose.Options{
		Store: s, Dir: data, Listen: strings.Split(*listen, ","), Nodes: *nodes, Runtime: *runtime, Proxy: *proxy,
		NoScheduler: !*scheduler, NoControllers: !*controllers, NodeGracePeriod: *grace,
		Logger: logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.Level(-*verbose)})),
	}
	compose.LibrariesLog(o.Logger)
	if *admissionOff != "" {
		o.DisableAdmission = strings.Split(*admissionOff, ",")
	}
	c, err := compose.New(o)
	if err != nil {
		return err
	}
	if *kubeconfig == "" {
		*kubeconfig = filepath.Join(data, "kubeconfig")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	announced := make(chan struct{})
	go func() {
		defer close(announced)
		if c.Server.WaitReady(ctx) != nil {
			return
		}
		if err := c.Server.WriteKubeconfig(*kubeconfig, apiserver.Admin); err != nil {
			cancel(err)
			return
		}
		if err := c.Server.WriteKubeconfig(filepath.Join(data, "join.kubeconfig"), compose.Joining()); err != nil {
			cancel(err)
			return
		}
		fmt.Printf("ready kubeconfig=%s\n", *kubeconfig)
		giveBack(ctx)
	}()
	err = c.Run(ctx)
	failed := context.Cause(ctx)
	cancel(nil)
	<-announced
	if err == nil && failed != nil && !errors.Is(failed, context.Canceled) {
		err = failed
	}
	return err
}

// openStore opens what -store names.
func openStore(ctx context.Context, spec, dir string) (store.Store, error) {
	switch kind, urls, _ := strings.Cut(spec, "="); kind {
	case "memory":
		return memstore.New(memstore.Options{})
	case "bolt":
		return boltstore.Open(filepath.Join(dir, "state.db"), boltstore.Options{})
	case "etcd":
		return etcdstore.New(ctx, strings.Split(urls, ","), etcdstore.Options{})
	}
	return nil, errors.New("want memory, bolt or etcd=URL,…")
}
