package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const replicas, port = 3, 8080

// hello is the workload: a web server that says which pod it is. It listens on its pod's own address, so that replicas that share a host can
// all have the port.
func hello(ctx context.Context) error {
	name, at := os.Getenv("POD_NAME"), net.JoinHostPort(os.Getenv("POD_IP"), fmt.Sprint(port))
	srv := &http.Server{Addr: at, ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ready" {
			fmt.Println("asked by", r.RemoteAddr)
		}
		fmt.Fprintln(w, "hello from", name)
	})}
	context.AfterFunc(ctx, func() { srv.Close() })
	fmt.Println(name, "listens on", at)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func workload() []client.Object {
	labels := map[string]string{"app": "hello"}
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
	}
	meta := metav1.ObjectMeta{Name: "hello", Namespace: metav1.NamespaceDefault, Labels: labels}
	return []client.Object{
		&appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](replicas), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
				Containers: []corev1.Container{{
					Name: "hello", Image: imageName, ImagePullPolicy: corev1.PullNever,
					Env:            []corev1.EnvVar{field("POD_NAME", "metadata.name"), field("POD_IP", "status.podIP")},
					Ports:          []corev1.ContainerPort{{ContainerPort: port}},
					ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(port)}}},
				}},
				TerminationGracePeriodSeconds: ptr.To[int64](2),
			}},
		}},
		&corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: port}}}},
	}
}

// follow shows the pods on their way until all are ready.
func follow(ctx context.Context, api client.WithWatch, p *progress) error {
	p.step(fmt.Sprintf("deploying %d replicas behind a Service", replicas))
	for {
		var pods corev1.PodList
		if err := api.List(ctx, &pods, client.InNamespace(metav1.NamespaceDefault), client.MatchingLabels{"app": "hello"}); err != nil {
			return cause(ctx, err)
		}
		ready, lines := 0, []string{}
		for i := range pods.Items {
			state := podState(&pods.Items[i])
			if state == "Ready" {
				ready++
			}
			lines = append(lines, fmt.Sprintf("%-28s %-10s %s", pods.Items[i].Name, state, pods.Items[i].Status.PodIP))
		}
		sort.Strings(lines)
		p.show(lines)
		if ready == replicas {
			p.done(fmt.Sprintf("%d of %d pods ready", ready, replicas))
			return nil
		}
		select {
		case <-ctx.Done():
			return cause(ctx, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

func podState(pod *corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return "Ready"
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Waiting != nil && c.State.Waiting.Reason != "" {
			return c.State.Waiting.Reason
		}
	}
	return string(pod.Status.Phase)
}

// call asks the Service until every replica has answered.
func call(ctx context.Context, api client.Client, p *progress) error {
	var svc corev1.Service
	if err := api.Get(ctx, types.NamespacedName{Namespace: metav1.NamespaceDefault, Name: "hello"}, &svc); err != nil {
		return err
	}
	url := "http://" + net.JoinHostPort(svc.Spec.ClusterIP, fmt.Sprint(port))
	p.step("calling the Service at " + url)
	answers := map[string]int{}
	for calls := 0; len(answers) < replicas; calls++ {
		who, err := get(ctx, url)
		if err == nil {
			answers[who]++
			continue
		}
		if calls > 200 {
			return fmt.Errorf("%s does not answer: %w", url, err)
		}
		select {
		case <-ctx.Done():
			return cause(ctx, ctx.Err())
		case <-time.After(50 * time.Millisecond): // the data plane learns of a new Service a moment later
		}
	}
	var lines []string
	for who, n := range answers {
		lines = append(lines, fmt.Sprintf("%-40s %d times", who, n))
	}
	sort.Strings(lines)
	p.show(lines)
	p.done("every replica answered")
	return nil
}

func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.Close = true // a new connection each time, so that each may reach another pod
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	return strings.TrimSpace(string(b)), err
}
