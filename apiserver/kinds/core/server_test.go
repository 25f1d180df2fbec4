package core_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// warnings collects the Warning headers of a client's requests.
type warnings struct {
	mu   sync.Mutex
	list []string
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, text)
}

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.list
	w.list = nil
	return out
}

func newStore(t *testing.T) store.Store {
	t.Helper()
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// serve runs a server on a store until the test ends.
func serve(t *testing.T, st store.Store, opts apiserver.Options) (*kubernetes.Clientset, *warnings) {
	t.Helper()
	opts.DisableAdmission = []string{"ServiceAccount"}
	s, err := apiserver.New(st, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	ready, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	if err := s.WaitReady(ready); err != nil {
		t.Fatal(err)
	}
	config := rest.CopyConfig(s.RESTConfig(apiserver.Admin))
	config.QPS = -1
	w := &warnings{}
	config.WarningHandler = w
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return clients, w
}

// TestServicesOfTwoServersOnOneStore creates Services through two servers at the same time, from a range that just has room: no address
// and no node port is given twice, and both servers end up able to use what the other freed.
func TestServicesOfTwoServersOnOneStore(t *testing.T) {
	st := newStore(t)
	opts := apiserver.Options{ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/27")}, NodePorts: apiserver.PortRange{First: 30000, Last: 30029}}
	a, _ := serve(t, st, opts)
	b, _ := serve(t, st, opts)
	ctx := context.Background()
	servers := []*kubernetes.Clientset{a, b}
	// The server's own Service kubernetes has one of the 30 addresses.
	const each = 14
	for round := range 3 {
		var wg sync.WaitGroup
		for i, clients := range servers {
			wg.Go(func() {
				for n := range each {
					s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s%d-%d", i, n)}, Spec: corev1.ServiceSpec{Type: "NodePort", Ports: []corev1.ServicePort{{Port: 80}}}}
					if _, err := clients.CoreV1().Services("default").Create(ctx, s, metav1.CreateOptions{}); err != nil {
						t.Errorf("round %d: %v", round, err)
					}
				}
			})
		}
		wg.Wait()
		list, err := servers[round%2].CoreV1().Services("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]string{}
		for _, s := range list.Items {
			for _, value := range []string{s.Spec.ClusterIP, fmt.Sprint("port ", s.Spec.Ports[0].NodePort)} {
				if other, twice := seen[value]; twice && value != "port 0" {
					t.Errorf("%s has %s of %s", s.Name, value, other)
				}
				seen[value] = s.Name
			}
		}
		// Each server removes what the other one made.
		for i := range servers {
			for n := range each {
				if err := servers[1-i].CoreV1().Services("default").Delete(ctx, fmt.Sprintf("s%d-%d", i, n), metav1.DeleteOptions{}); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			}
		}
	}
	claims, err := st.List(ctx, store.ListOptions{Prefix: "/registry/claims/"})
	if err != nil {
		t.Fatal(err)
	}
	if len(claims.KVs) != 1 {
		t.Errorf("%d claims are left, want that of the Service kubernetes", len(claims.KVs))
	}
}

func examplePod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "example.org/web:1"}}},
	}
}

// TestOverTheWire follows objects of the group through a server, as client-go sees it.
func TestOverTheWire(t *testing.T) {
	clients, w := serve(t, newStore(t), apiserver.Options{})
	ctx := context.Background()
	api := clients.CoreV1()
	pods := api.Pods("default")

	t.Run("pod's life", func(t *testing.T) {
		if _, err := api.Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Capacity: corev1.ResourceList{}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		p, err := pods.Create(ctx, examplePod("web"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if p.Generation != 1 || p.Status.Phase != corev1.PodPending || p.Status.QOSClass != corev1.PodQOSBestEffort || p.Spec.RestartPolicy != corev1.RestartPolicyAlways {
			t.Errorf("created %+v", p)
		}
		if err := pods.Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		list, err := pods.List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", "n1").String()})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("by node: %v, %v", list, err)
		}
		p = &list.Items[0]
		p.Status.Phase, p.Status.PodIP = corev1.PodRunning, "10.0.0.9"
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
		p.Spec.NodeName = "n1"
		if p, err = pods.UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(p.Status.PodIPs, []corev1.PodIP{{IP: "10.0.0.9"}}) {
			t.Errorf("podIPs %v", p.Status.PodIPs)
		}
		p.Spec.Containers[0].Image = "example.org/web:2"
		if p, err = pods.Update(ctx, p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if p.Generation != 2 || p.Status.Phase != corev1.PodRunning {
			t.Errorf("generation %d, phase %s", p.Generation, p.Status.Phase)
		}
		p.Spec.Containers[0].Command = []string{"x"}
		if _, err = pods.Update(ctx, p, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) || !strings.HasPrefix(err.Error(), `Pod "web" is invalid: spec: Forbidden: pod updates may not change fields other than`) {
			t.Errorf("changed command: %v", err)
		}
		// A running pod ends in two steps.
		if err := pods.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if p, err = pods.Get(ctx, "web", metav1.GetOptions{}); err != nil || p.DeletionTimestamp == nil || p.DeletionGracePeriodSeconds == nil || *p.DeletionGracePeriodSeconds != 30 {
			t.Fatalf("after delete: %+v, %v", p, err)
		}
		if err := pods.Delete(ctx, "web", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
			t.Fatal(err)
		}
		if _, err := pods.Get(ctx, "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("after the second: %v", err)
		}
	})

	t.Run("unscheduled pod goes at once", func(t *testing.T) {
		if _, err := pods.Create(ctx, examplePod("idle"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := pods.Delete(ctx, "idle", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := pods.Get(ctx, "idle", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("still there: %v", err)
		}
	})

	t.Run("subresources of a pod", func(t *testing.T) {
		p, err := pods.Create(ctx, examplePod("sub"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "i"}}}
		p.Spec.Containers[0].Image = "ignored"
		if p, err = pods.UpdateEphemeralContainers(ctx, "sub", p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if p.Spec.EphemeralContainers[0].TerminationMessagePath == "" || p.Spec.Containers[0].Image != "example.org/web:1" || p.Generation != 2 {
			t.Errorf("after adding: %+v", p.Spec)
		}
		patch := `{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"1"}}}]}}`
		_, err = pods.Patch(ctx, "sub", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "resize")
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "Pod QOS Class may not change as a result of resizing") {
			t.Errorf("resize: %v", err)
		}
	})

	t.Run("eviction", func(t *testing.T) {
		budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "guarded"}}}}
		b, err := clients.PolicyV1().PodDisruptionBudgets("default").Create(ctx, budget, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		b.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: b.Generation, DesiredHealthy: 1, CurrentHealthy: 1}
		if _, err := clients.PolicyV1().PodDisruptionBudgets("default").UpdateStatus(ctx, b, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		p := examplePod("guarded")
		p.Labels["app"], p.Spec.NodeName = "guarded", "n1"
		if p, err = pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		p.Status.Phase, p.Status.Conditions = corev1.PodRunning, []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if _, err = pods.UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		e := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "guarded", Namespace: "default"}}
		err = clients.PolicyV1().Evictions("default").Evict(ctx, e)
		if !apierrors.IsTooManyRequests(err) || !apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause) {
			t.Fatalf("eviction: %v", err)
		}
		if err := clients.PolicyV1().PodDisruptionBudgets("default").Delete(ctx, "b", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := clients.PolicyV1().Evictions("default").Evict(ctx, e); err != nil {
			t.Fatal(err)
		}
		if p, err = pods.Get(ctx, "guarded", metav1.GetOptions{}); err != nil || p.DeletionTimestamp == nil {
			t.Errorf("evicted pod: %v, %v", p, err)
		}
	})

	t.Run("services", func(t *testing.T) {
		services := api.Services("default")
		s, err := services.Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{Type: "NodePort", Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if s.Spec.ClusterIP == "" || s.Spec.Ports[0].NodePort == 0 || s.Generation != 0 {
			t.Errorf("created %+v", s)
		}
		_, err = services.Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "same"}, Spec: corev1.ServiceSpec{ClusterIP: s.Spec.ClusterIP, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "provided IP is already allocated") {
			t.Errorf("same address: %v", err)
		}
		if s, err = services.Patch(ctx, "web", types.MergePatchType, []byte(`{"spec":{"type":"ClusterIP"}}`), metav1.PatchOptions{}); err != nil || s.Spec.Ports[0].NodePort != 0 {
			t.Errorf("patched %+v, %v", s.Spec, err)
		}
		dry, err := services.Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "dry"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{DryRun: []string{"All"}})
		if err != nil || dry.Spec.ClusterIP == "" {
			t.Errorf("dry run: %v, %v", dry, err)
		}
	})

	t.Run("namespace's end", func(t *testing.T) {
		ns, err := api.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "team-"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if ns.Labels[corev1.LabelMetadataName] != ns.Name || !slices.Equal(ns.Spec.Finalizers, []corev1.FinalizerName{"kubernetes"}) || ns.Status.Phase != corev1.NamespaceActive {
			t.Errorf("created %+v", ns)
		}
		if err := api.Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if ns, err = api.Namespaces().Get(ctx, ns.Name, metav1.GetOptions{}); err != nil || ns.Status.Phase != corev1.NamespaceTerminating || ns.DeletionTimestamp == nil {
			t.Fatalf("terminating: %+v, %v", ns, err)
		}
		ns.Spec.Finalizers = nil
		if _, err := api.Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := api.Namespaces().Get(ctx, ns.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("finalized: %v", err)
		}
	})

	t.Run("events of both groups", func(t *testing.T) {
		_, err := api.Events("default").Create(ctx, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "old"}, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "web", Namespace: "default"}, Reason: "R", Message: "m", Count: 2}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		e, err := clients.EventsV1().Events("default").Get(ctx, "old", metav1.GetOptions{})
		if err != nil || e.Note != "m" || e.Regarding.Name != "web" || e.DeprecatedCount != 2 {
			t.Fatalf("as events.k8s.io: %+v, %v", e, err)
		}
		list, err := clients.EventsV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "regarding.name=web"})
		if err != nil || len(list.Items) != 1 {
			t.Errorf("by regarding.name: %d, %v", len(list.Items), err)
		}
		good := &eventsv1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: "new"}, EventTime: metav1.NowMicro(), ReportingController: "example.org/c", ReportingInstance: "i",
			Action: "A", Reason: "R", Type: "Normal", Regarding: corev1.ObjectReference{Namespace: "default", Name: "web"},
		}
		if _, err := clients.EventsV1().Events("default").Create(ctx, good, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		bad := good.DeepCopy()
		bad.Name, bad.Action = "bad", ""
		if _, err := clients.EventsV1().Events("default").Create(ctx, bad, metav1.CreateOptions{}); err == nil || err.Error() != `Event "bad" is invalid: action: Required value` {
			t.Errorf("without action: %v", err)
		}
		if c, err := api.Events("default").Get(ctx, "new", metav1.GetOptions{}); err != nil || c.InvolvedObject.Name != "web" || c.ReportingController != "example.org/c" {
			t.Errorf("as core: %+v, %v", c, err)
		}
	})

	t.Run("secrets", func(t *testing.T) {
		s, err := api.Secrets("default").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"a": "b"}, Immutable: ptr.To(true)}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if string(s.Data["a"]) != "b" || s.StringData != nil || s.Type != corev1.SecretTypeOpaque {
			t.Errorf("created %+v", s)
		}
		s.Data["a"] = []byte("c")
		if _, err := api.Secrets("default").Update(ctx, s, metav1.UpdateOptions{}); err == nil || err.Error() != "Secret \"s\" is invalid: data: Forbidden: field is immutable when `immutable` is set" {
			t.Errorf("changed: %v", err)
		}
	})

	t.Run("warnings", func(t *testing.T) {
		w.take()
		p := examplePod("warned")
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A"}, {Name: "A"}}
		p.Spec.EvictionResponders = []corev1.EvictionResponder{{}}
		created, err := pods.Create(ctx, p, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if created.Spec.EvictionResponders != nil {
			t.Error("kept what is not supported")
		}
		want := []string{
			"spec.evictionResponders: dropped, the feature EvictionRequestAPI is not supported",
			`spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply`,
		}
		if diff := cmp.Diff(want, w.take()); diff != "" {
			t.Errorf("warnings (-want +got):\n%s", diff)
		}
	})

	t.Run("table", func(t *testing.T) {
		raw, err := api.RESTClient().Get().Namespace("default").Resource("pods").Name("warned").SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var table metav1.Table
		if err := json.Unmarshal(raw, &table); err != nil {
			t.Fatal(err)
		}
		if len(table.Rows) != 1 || fmt.Sprint(table.Rows[0].Cells[:4]) != "[warned 0/1 Pending 0]" || len(table.ColumnDefinitions) != 9 {
			t.Errorf("table %s", raw)
		}
	})

	t.Run("every kind", func(t *testing.T) {
		resources, err := clients.Discovery().ServerResourcesForGroupVersion("v1")
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, r := range resources.APIResources {
			names = append(names, r.Name)
		}
		for _, want := range []string{
			"bindings", "configmaps", "endpoints", "events", "limitranges", "namespaces", "namespaces/finalize", "namespaces/status", "nodes", "nodes/status",
			"persistentvolumeclaims", "persistentvolumeclaims/status", "persistentvolumes", "persistentvolumes/status", "pods", "pods/binding", "pods/ephemeralcontainers", "pods/eviction",
			"pods/resize", "pods/status", "podtemplates", "replicationcontrollers", "replicationcontrollers/scale", "replicationcontrollers/status", "resourcequotas", "resourcequotas/status",
			"secrets", "serviceaccounts", "services", "services/status",
		} {
			if !slices.Contains(names, want) {
				t.Errorf("%s is not served", want)
			}
		}
	})
}
