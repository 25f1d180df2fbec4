// Explain says why a pod goes where it goes, or why it waits: each plugin's verdict and score for each class of nodes, the winner and by how much.
//
//	go run ./examples/explain                             a demonstration on a cluster of its own
//	go run ./examples/explain web-0                       a pod of the cluster in $KUBECONFIG, pending or not
//	go run ./examples/explain -n shop -f pod.yaml         a pod that doesn't exist yet
//	go run ./examples/explain -f pod.yaml -count 50       would 50 of them fit, and where?
//
// It only reads.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

type options struct {
	kubeconfig, namespace, file, pod string
	count                            int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var o options
	flag.StringVar(&o.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "the cluster; by default $KUBECONFIG")
	flag.StringVar(&o.namespace, "n", "default", "namespace of the pod")
	flag.StringVar(&o.file, "f", "", "file with a pod in YAML or JSON that need not exist, - for standard input")
	flag.IntVar(&o.count, "count", 0, "also say whether that many such pods would fit now, and where")
	flag.Parse()
	o.pod = flag.Arg(0)
	run := o.run
	if flag.NArg() == 0 && flag.NFlag() == 0 {
		run = demo
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "explain:", err)
		os.Exit(1)
	}
}

// run explains a pod of a live cluster.
func (o options) run(ctx context.Context) error {
	switch {
	case o.kubeconfig == "":
		return errors.New("want -kubeconfig or $KUBECONFIG; without any flag there is a demonstration")
	case (o.file == "") == (o.pod == ""):
		return errors.New("want the name of a pod, or a file with one by -f")
	case o.count < 0:
		return fmt.Errorf("-count %d: want 0 or more", o.count)
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return err
	}
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		return err
	}
	var pod *corev1.Pod
	if o.file != "" {
		pod, err = fromFile(o.file, o.namespace)
	} else {
		pod = &corev1.Pod{}
		err = c.Get(ctx, types.NamespacedName{Namespace: o.namespace, Name: o.pod}, pod)
	}
	if err != nil {
		return err
	}
	return explain(ctx, os.Stdout, c, pod, o.count)
}

func fromFile(name, namespace string) (*corev1.Pod, error) {
	var data []byte
	var err error
	if name == "-" {
		data, err = io.ReadAll(os.Stdin)
	} else {
		data, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{}
	if err := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096).Decode(pod); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if pod.Kind != "Pod" {
		return nil, fmt.Errorf("%s: kind %q: want a Pod", name, pod.Kind)
	}
	if pod.Namespace == "" {
		pod.Namespace = namespace
	}
	if pod.Name == "" {
		pod.Name = "new"
	}
	pod.UID = "explain" // unlike any in the cluster
	return pod, nil
}

// explain reads the cluster and writes what the scheduler makes of the pod.
func explain(ctx context.Context, out io.Writer, r client.Reader, pod *corev1.Pod, count int) error {
	engine, _, err := scheduler.Snapshot(ctx, r, scheduler.EngineOptions{Profile: plugins.Default()})
	if err != nil {
		return err
	}
	if node := engine.Assigned(pod.UID); node != "" {
		fmt.Fprintf(out, "It is on %s; if it came now:\n\n", node)
		engine.Remove(pod.UID)
	}
	pod = pod.DeepCopy()
	pod.Spec.NodeName = ""
	fmt.Fprint(out, engine.Explain(scheduler.NewPod(pod)))
	if count > 0 {
		fmt.Fprintln(out)
		whatIf(out, engine, pod, count)
	}
	return nil
}
