// Node is a worker that joins a running API server from another host.
//
//	node -kubeconfig FILE [-name NAME] [-ip ADDRESS]
//
// The kubeconfig is the cluster's join.kubeconfig, with a server address that this host can reach: it permits to ask for the node's own certificate, which the
// cluster signs and with which the node works from then on. As root with nftables, pods get
// network namespaces and reach pods on other nodes; otherwise they share this host's network.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/keelson/keelson/examples/internal/compose"
	"github.com/keelson/keelson/kubelet/processruntime"
)

func main() {
	if processruntime.Init() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	fs := flag.NewFlagSet("node", flag.ContinueOnError)
	kubeconfig := fs.String("kubeconfig", os.Getenv("KUBECONFIG"), "kubeconfig of the cluster to join")
	name := fs.String("name", host, "the node's name")
	ip := fs.String("ip", "", "the node's address, which the API server and other nodes reach (default: 127.0.0.1)")
	dir := fs.String("data-dir", "keelson-node", "directory of the node's state")
	runtime := fs.String("runtime", "auto", "auto, process, cri=SOCKET or fake")
	proxy := fs.String("proxy", "auto", "auto, nft, user or none")
	overlay := fs.Bool("overlay", false, "wrap traffic to other nodes' pods in VXLAN, where the nodes share no network")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *kubeconfig == "" {
		return errors.New("-kubeconfig: want the join.kubeconfig from the data directory of allinone")
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1 // the server bounds itself
	log := logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, nil))
	ctrllog.SetLogger(log)
	compose.LibrariesLog(log)
	o := compose.NodeOptions{Name: *name, Runtime: *runtime, Proxy: *proxy, Overlay: *overlay, Logger: log, IP: netip.MustParseAddr("127.0.0.1")}
	if o.Dir, err = filepath.Abs(*dir); err != nil {
		return err
	}
	if *ip != "" {
		if o.IP, err = netip.ParseAddr(*ip); err != nil {
			return fmt.Errorf("-ip: %w", err)
		}
	}
	id, err := compose.Join(ctx, config, *name, o.IP, filepath.Join(o.Dir, "pki"), log)
	if err != nil {
		return err
	}
	o.ClientCA, o.ServingCert = id.CA, id.ServingCert
	c, err := client.NewWithWatch(id.Config, client.Options{})
	if err != nil {
		return err
	}
	cc, err := cache.New(id.Config, cache.Options{ByObject: map[client.Object]cache.ByObject{
		&corev1.Pod{}: {Field: fields.OneTermEqualSelector("spec.nodeName", *name)},
	}})
	if err != nil {
		return err
	}
	can, why := compose.CanIsolate()
	o.Isolated = can && *proxy != "user" && *runtime != "fake"
	if *proxy == "auto" {
		if o.Proxy = "user"; o.Isolated {
			o.Proxy = "nft"
		}
	}
	n, err := compose.NewNode(ctx, c, cc, o)
	if err != nil {
		return err
	}
	fmt.Printf("joining %s as %s; isolation of pods: %s\n", config.Host, *name, n.Isolation())
	if !o.Isolated && why != "" {
		fmt.Printf("pods share this host's network: %s\n", why)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { cancel(cc.Start(ctx)) })
	err = n.Run(ctx)
	cancel(nil)
	wg.Wait()
	return err
}
