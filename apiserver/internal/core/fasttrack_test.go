package core

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/store/memstore"
)

// randomPod makes pods that differ in everything that managed fields treat in a way of its own.
func randomPod(r *rand.Rand) *corev1.Pod {
	maybe := func() bool { return r.Intn(2) == 0 }
	word := func() string { return string(rune('a' + r.Intn(4))) }
	p := &corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}}
	p.Name, p.Namespace, p.UID, p.ResourceVersion = "p", "ns", "u", word()
	if maybe() {
		p.Labels = map[string]string{}
		for range r.Intn(3) {
			p.Labels[word()] = word()
		}
	}
	if maybe() {
		p.Annotations = map[string]string{"x/" + word(): word()}
	}
	for i := range r.Intn(3) {
		p.Finalizers = append(p.Finalizers, fmt.Sprint("f/", word(), i))
		p.OwnerReferences = append(p.OwnerReferences, metav1.OwnerReference{UID: types.UID(fmt.Sprint(word(), i)), Name: word()})
	}
	for i := range r.Intn(3) {
		c := corev1.Container{Name: fmt.Sprint(word(), i), Image: word()}
		if maybe() {
			c.Args = []string{word(), word()}
			c.Command = []string{}
		}
		for range r.Intn(2) {
			c.Ports = append(c.Ports, corev1.ContainerPort{ContainerPort: int32(r.Intn(200)), Name: word()})
		}
		if maybe() {
			c.Ports = append(c.Ports, corev1.ContainerPort{ContainerPort: 1000, Protocol: "UDP"}, corev1.ContainerPort{ContainerPort: 999, Protocol: "TCP"})
		}
		if maybe() {
			c.Env = []corev1.EnvVar{{Name: word(), Value: word()}, {Name: word() + "2", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: word()}}}}
			c.Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse(fmt.Sprint(r.Intn(3)+1, "00m"))}
		}
		if maybe() {
			c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt(r.Intn(2))}}}
			c.SecurityContext = &corev1.SecurityContext{Privileged: new(bool)}
		}
		p.Spec.Containers = append(p.Spec.Containers, c)
	}
	if maybe() {
		p.Spec.NodeSelector = map[string]string{word(): word()}
		p.Spec.Tolerations = []corev1.Toleration{{Key: word()}}
		p.Spec.TerminationGracePeriodSeconds = new(int64)
	}
	if maybe() {
		p.Spec.Volumes = []corev1.Volume{{Name: word(), VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.SecurityContext = &corev1.PodSecurityContext{}
		p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: word()}}
	}
	if maybe() {
		terms := []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: word()}}}}
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
		}}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{TopologyKey: word(), WhenUnsatisfiable: "DoNotSchedule", MaxSkew: int32(r.Intn(2))}}
	}
	p.Spec.NodeName = []string{"", "n"}[r.Intn(2)]
	p.Status.Phase = []corev1.PodPhase{"", "Running"}[r.Intn(2)]
	if maybe() {
		p.Status.Conditions = []corev1.PodCondition{{Type: "Ready", Status: corev1.ConditionStatus(word()), LastTransitionTime: metav1.Unix(int64(r.Intn(2)+1), 0)}}
		p.Status.PodIPs = []corev1.PodIP{{IP: word()}}
		p.Status.StartTime = &metav1.Time{Time: metav1.Unix(int64(r.Intn(2)+1), 0).Time}
	}
	return p
}

func randomDeployment(r *rand.Rand) *appsv1.Deployment {
	d := &appsv1.Deployment{TypeMeta: metav1.TypeMeta{Kind: "Deployment", APIVersion: "apps/v1"}}
	d.Name, d.Namespace, d.UID = "d", "ns", "u"
	p := randomPod(r)
	d.Labels = p.Labels
	d.Spec.Template.Spec, d.Spec.Template.Labels = p.Spec, p.Labels
	if r.Intn(2) == 0 {
		d.Spec.Selector = &metav1.LabelSelector{MatchLabels: p.Annotations}
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &intstr.IntOrString{Type: intstr.String, StrVal: "1%"}}
	}
	d.Status.Replicas = int32(r.Intn(2))
	return d
}

// TestFastTrack compares the fast way with apimachinery's on random histories of random objects.
func TestFastTrack(t *testing.T) {
	s, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := New(Options{Store: s, Groups: []kind.Group{
		{Name: "", AddToScheme: corev1.AddToScheme, Kinds: []*kind.Kind{{GVK: corev1.SchemeGroupVersion.WithKind("Pod"), Resource: "pods", Namespaced: true, Status: &kind.Subresource{}}}},
		{Name: "apps", AddToScheme: appsv1.AddToScheme, Kinds: []*kind.Kind{{GVK: appsv1.SchemeGroupVersion.WithKind("Deployment"), Resource: "deployments", Namespaced: true, Status: &kind.Subresource{}}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, kindName := range []string{"Pod", "Deployment"} {
		t.Run(kindName, func(t *testing.T) {
			fastCount := 0
			for seed := range int64(300) {
				rnd := rand.New(rand.NewSource(seed))
				random := func() client.Object {
					if kindName == "Pod" {
						return randomPod(rnd)
					}
					return randomDeployment(rnd)
				}
				r := c.resources[0]
				if kindName == "Deployment" {
					r = c.resources[1]
				}
				empty, _ := newObject(c.scheme, r.GVK)
				live := empty
				for step := range 5 {
					next := random()
					sub := ""
					if step > 0 && rnd.Intn(3) == 0 {
						sub = "status"
					}
					if step > 0 && rnd.Intn(2) == 0 {
						next.SetManagedFields(live.GetManagedFields())
					}
					manager := fmt.Sprint("m", rnd.Intn(3))
					slow, fast := next.DeepCopyObject().(client.Object), next.DeepCopyObject().(client.Object)
					c.managed.slowUpdate(r, sub, live.DeepCopyObject().(client.Object), slow, manager)
					if c.managed.track(r, sub, live, fast, manager) {
						fastCount++
						for _, o := range []client.Object{slow, fast} {
							mf := o.GetManagedFields()
							for i := range mf {
								mf[i].Time = nil
							}
						}
						if d := cmp.Diff(show(slow), show(fast)); d != "" {
							old, _ := json.Marshal(live)
							now, _ := json.Marshal(next)
							t.Fatalf("seed %d step %d sub %q (-slow +fast)\n%s\nold %s\nnew %s", seed, step, sub, d, old, now)
						}
					}
					live = slow
				}
			}
			if fastCount < 1000 {
				t.Errorf("only %d of 1500 took the fast way", fastCount)
			}
		})
	}
}

func show(o client.Object) []string {
	var out []string
	for _, e := range o.GetManagedFields() {
		out = append(out, fmt.Sprint(e.Operation, " ", e.Manager, " ", e.APIVersion, " ", e.Subresource, " ", e.FieldsV1.GetRawString()))
	}
	slices.Sort(out) // the times have been left out
	return out
}
