package admissiontest

import (
	"context"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/warning"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// Client returns a client in memory that has objects.
func Client(t testing.TB, objects ...client.Object) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithRESTMapper(testrestmapper.TestOnlyStaticRESTMapper(scheme)).WithObjects(objects...).
		WithStatusSubresource(&corev1.ResourceQuota{}, &corev1.Pod{}, &corev1.Namespace{}).Build()
}

// Request describes what is asked for admission.
type Request struct {
	Object, Old client.Object
	// Group and Resource are those of the object by default.
	Group, Resource, Subresource string
	Operation                    admission.Operation
	User                         user.Info
	DryRun                       bool
	// Name and Namespace are those of the object by default.
	Name, Namespace string
}

// Attributes returns the request as plugins see it.
func (r Request) Attributes(t testing.TB) admission.Attributes {
	t.Helper()
	o := r.Object
	if o == nil {
		o = r.Old
	}
	gvks, _, err := clientgoscheme.Scheme.ObjectKinds(o)
	if err != nil {
		t.Fatal(err)
	}
	gvk := gvks[0]
	plural, _ := meta.UnsafeGuessKindToResource(gvk)
	if r.Resource != "" {
		plural = schema.GroupVersionResource{Group: r.Group, Version: "v1", Resource: r.Resource}
	}
	if r.Name == "" {
		r.Name = o.GetName()
	}
	if r.Namespace == "" {
		r.Namespace = o.GetNamespace()
	}
	if r.Operation == "" {
		r.Operation = admission.Create
	}
	if r.User == nil {
		r.User = &user.DefaultInfo{Name: "jane"}
	}
	// A nil pointer in an interface would not be nil to plugins.
	var obj, old runtime.Object
	if r.Object != nil {
		obj = r.Object
	}
	if r.Old != nil {
		old = r.Old
	}
	return admission.NewAttributesRecord(obj, old, gvk, r.Namespace, r.Name, plural, r.Subresource, r.Operation, &metav1.CreateOptions{}, r.DryRun, r.User)
}

// Run gives a request to a plugin, its Admit and then its Validate, and returns the warnings.
func Run(t testing.TB, p admission.Interface, r Request) ([]string, error) {
	t.Helper()
	rec := &recorder{}
	ctx := warning.WithWarningRecorder(context.Background(), rec)
	a := r.Attributes(t)
	if !p.Handles(a.GetOperation()) {
		return nil, nil
	}
	if m, ok := p.(admission.MutationInterface); ok {
		if err := m.Admit(ctx, a, nil); err != nil {
			return rec.texts, err
		}
	}
	if v, ok := p.(admission.ValidationInterface); ok {
		if err := v.Validate(ctx, a, nil); err != nil {
			return rec.texts, err
		}
	}
	return rec.texts, nil
}

type recorder struct {
	mu    sync.Mutex
	texts []string
}

func (r *recorder) AddWarning(_, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts = append(r.texts, text)
}
