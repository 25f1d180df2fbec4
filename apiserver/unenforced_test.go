package apiserver_test

import (
	"strings"
	"sync"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/store/memstore"
)

type warned struct {
	mu   sync.Mutex
	text string
}

func (w *warned) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text += text
}

// Who writes what nothing acts on is told so, unless something else does.
func TestUnenforcedIsLoud(t *testing.T) {
	for name, tc := range map[string]struct {
		enforced []string
		want     map[string]bool
	}{
		"nothing": {nil, map[string]bool{"NetworkPolicies": true, "HorizontalPodAutoscalers": true}},
		"policy":  {[]string{"networkpolicies"}, map[string]bool{"NetworkPolicies": false, "HorizontalPodAutoscalers": true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, apiserver.Options{Enforced: tc.enforced})
			cfg := rest.CopyConfig(s.RESTConfig(apiserver.Admin))
			w := &warned{}
			cfg.WarningHandler = w
			cs := clientFor(t, cfg)
			if _, err := cs.NetworkingV1().NetworkPolicies("default").Create(t.Context(), &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			h := &autoscalingv1.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "h"}, Spec: autoscalingv1.HorizontalPodAutoscalerSpec{
				MaxReplicas: 2, ScaleTargetRef: autoscalingv1.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "d"},
			}}
			if _, err := cs.AutoscalingV1().HorizontalPodAutoscalers("default").Create(t.Context(), h, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			for kind, want := range tc.want {
				if strings.Contains(w.text, kind) != want {
					t.Errorf("warnings are %q", w.text)
				}
			}
		})
	}
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := apiserver.New(st, apiserver.Options{Enforced: []string{"pods"}}); err == nil || !strings.Contains(err.Error(), "Options.Enforced") {
		t.Errorf("unknown resource: %v", err)
	}
}
