// Scheduler is a scheduler for any Kubernetes API server: it takes kube-scheduler's place.
//
//	go run ./examples/scheduler -kubeconfig FILE                    with Kubernetes' default profile
//	go run ./examples/scheduler -kubeconfig FILE -config FILE       configured as kube-scheduler is: KubeSchedulerConfiguration v1
//
// Several may run: one is elected by a Lease and the others stand by. One that loses the Lease stands by again.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	kubeconfig := flag.String("kubeconfig", "", "the API server and who we are there; in a pod: none")
	file := flag.String("config", "", "a KubeSchedulerConfiguration")
	elect := flag.Bool("leader-elect", true, "schedule only while holding the Lease that -config names, or kube-system/kube-scheduler")
	flag.Parse()
	log := logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, nil))
	crlog.SetLogger(log)
	if err := run(ctx, *kubeconfig, *file, *elect, log); err != nil {
		fmt.Fprintln(os.Stderr, "scheduler:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig, file string, elect bool, log logr.Logger) error {
	c, err := read(file)
	if err != nil {
		return err
	}
	for _, w := range c.Warnings {
		log.Info(w, "file", file)
	}
	c.ClientConnection.Kubeconfig = cmp.Or(kubeconfig, c.ClientConnection.Kubeconfig)
	rc, err := c.RESTConfig()
	if err != nil {
		return err
	}
	c.Scheduler.Logger = log
	if !elect || !*c.LeaderElection.LeaderElect {
		return schedule(ctx, rc, c.Scheduler)
	}
	for {
		if err := term(ctx, rc, c, log); err != nil || ctx.Err() != nil {
			return err
		}
		// Plugins may remember things: the next term has its own.
		opts := c.Scheduler
		if c, err = read(file); err != nil {
			return err
		}
		opts.Profiles, opts.Extenders = c.Scheduler.Profiles, c.Scheduler.Extenders
		c.Scheduler = opts
	}
}

func read(file string) (*config.Config, error) {
	if file == "" {
		return config.Default(config.Options{})
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return config.Read(text, config.Options{})
}

// schedule runs a scheduler with a cache of its own until ctx ends.
func schedule(ctx context.Context, rc *rest.Config, opts scheduler.Options) error {
	c, err := client.New(rc, client.Options{Scheme: scheme.Scheme})
	if err != nil {
		return err
	}
	informers, err := cache.New(rc, cache.Options{Scheme: scheme.Scheme})
	if err != nil {
		return err
	}
	s, err := scheduler.New(c, informers, opts)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- informers.Start(ctx)
	}()
	err = s.Run(ctx)
	cancel()
	return errors.Join(err, <-ended)
}

// term waits for the Lease and schedules until it is lost.
func term(ctx context.Context, rc *rest.Config, c *config.Config, log logr.Logger) error {
	le := c.LeaderElection
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	own := rest.CopyConfig(rc) // so that the scheduler's requests don't hold up those for the Lease
	own.Timeout = le.RenewDeadline.Duration / 2
	cs, err := kubernetes.NewForConfig(own)
	if err != nil {
		return err
	}
	lock, err := resourcelock.New(le.ResourceLock, le.ResourceNamespace, le.ResourceName, cs.CoreV1(), cs.CoordinationV1(),
		resourcelock.ResourceLockConfig{Identity: fmt.Sprintf("%s_%d_%d", host, os.Getpid(), metav1.Now().UnixNano())})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leading := make(chan context.Context, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, Name: "scheduler", ReleaseOnCancel: true,
		LeaseDuration: le.LeaseDuration.Duration, RenewDeadline: le.RenewDeadline.Duration, RetryPeriod: le.RetryPeriod.Duration,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) { leading <- ctx },
			OnStoppedLeading: func() { log.Info("not leading") },
			OnNewLeader:      func(id string) { log.Info("leader", "identity", id) },
		},
	})
	if err != nil {
		return err
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		elector.Run(ctx)
	}()
	select {
	case <-stopped:
		return nil
	case until := <-leading:
		err := schedule(until, rc, c.Scheduler)
		cancel() // gives the Lease back
		<-stopped
		return err
	}
}
