package kindtest

import (
	"context"
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/randfill"

	"github.com/keelson/keelson/apiserver/kind"
)

// Find returns the declaration of a kind.
func Find(t testing.TB, g kind.Group, name string) *kind.Kind {
	t.Helper()
	for _, k := range g.Kinds {
		if k.GVK.Kind == name {
			return k
		}
	}
	t.Fatalf("group %s does not declare %s", g.Name, name)
	return nil
}

// Errors joins an error list into text, one line each.
func Errors(errs field.ErrorList) string {
	lines := make([]string, len(errs))
	for i, e := range errs {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Create does to obj what the server does on a creation, and returns the mistakes found.
func Create(k *kind.Kind, obj client.Object) string {
	ctx := context.Background()
	if k.Default != nil {
		k.Default(obj)
	}
	if k.PrepareForCreate != nil {
		k.PrepareForCreate(ctx, obj)
	}
	if k.Validate == nil {
		return ""
	}
	return Errors(k.Validate(ctx, obj))
}

// Update does to obj what the server does on an update of old, and returns the mistakes found.
func Update(k *kind.Kind, obj, old client.Object) string {
	ctx := context.Background()
	if k.Default != nil {
		k.Default(obj)
	}
	if k.PrepareForUpdate != nil {
		k.PrepareForUpdate(ctx, obj, old)
	}
	if k.ValidateUpdate == nil {
		return ""
	}
	return Errors(k.ValidateUpdate(ctx, obj, old))
}

// Change is one case of a table: a change to an object, and the mistakes that it must give, one line each ("" for none).
type Change[T client.Object] = struct {
	Name   string
	Change func(T)
	Want   string
}

// CreateTable creates a copy of a valid object with each change.
func CreateTable[T client.Object](t *testing.T, k *kind.Kind, valid T, cases []Change[T]) {
	t.Helper()
	for _, c := range append([]Change[T]{{Name: "valid", Change: func(T) {}}}, cases...) {
		t.Run(c.Name, func(t *testing.T) {
			obj := valid.DeepCopyObject().(T)
			c.Change(obj)
			if got := Create(k, obj); got != c.Want {
				t.Errorf("got\n%s\nwant\n%s", got, c.Want)
			}
		})
	}
}

// UpdateTable updates a stored copy of a valid object with each change.
func UpdateTable[T client.Object](t *testing.T, k *kind.Kind, valid T, cases []Change[T]) {
	t.Helper()
	for _, c := range append([]Change[T]{{Name: "nothing", Change: func(T) {}}}, cases...) {
		t.Run("update/"+c.Name, func(t *testing.T) {
			old := valid.DeepCopyObject().(T)
			if got := Create(k, old); got != "" {
				t.Fatal(got)
			}
			obj := old.DeepCopyObject().(T)
			c.Change(obj)
			if got := Update(k, obj, old); got != c.Want {
				t.Errorf("got\n%s\nwant\n%s", got, c.Want)
			}
		})
	}
}

// Row is the cells of an object's row, joined by " | ". Ages are as told.
func Row(t testing.TB, k *kind.Kind, obj client.Object) string {
	t.Helper()
	cells := k.Row(obj, time.Now())
	if len(cells) != len(k.Columns) {
		t.Errorf("%s: %d cells in %d columns", k.GVK.Kind, len(cells), len(k.Columns))
	}
	texts := make([]string, len(cells))
	for i, c := range cells {
		texts[i] = fmt.Sprint(c)
	}
	return strings.Join(texts, " | ")
}

// Header is the names of the columns, joined by " | ".
func Header(k *kind.Kind) string {
	names := make([]string, len(k.Columns))
	for i, c := range k.Columns {
		names[i] = c.Name
	}
	return strings.Join(names, " | ")
}

func filler(seed int64) *randfill.Filler {
	return randfill.New().RandSource(rand.NewSource(seed)).NilChance(0.4).NumElements(0, 3).MaxDepth(16).Funcs(
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewMilliQuantity(c.Int63n(4000)-1000, resource.DecimalSI)
		},
		func(s *intstr.IntOrString, c randfill.Continue) {
			switch c.Intn(4) {
			case 0:
				*s = intstr.FromString(fmt.Sprintf("%d%%", c.Intn(150)))
			case 1:
				*s = intstr.FromString(c.String(8))
			default:
				*s = intstr.FromInt32(c.Int31n(10) - 2)
			}
		},
		func(r *runtime.RawExtension, c randfill.Continue) {
			r.Raw = []byte(`{"a":` + fmt.Sprint(c.Intn(3)) + `}`)
		},
		func(f *metav1.FieldsV1, _ randfill.Continue) { f.Raw = []byte(`{}`) },
		func(x *metav1.Time, c randfill.Continue) { *x = metav1.NewTime(time.Unix(c.Int63n(1<<31), 0)) },
		func(x *metav1.MicroTime, c randfill.Continue) {
			*x = metav1.NewMicroTime(time.Unix(c.Int63n(1<<31), 0))
		},
	)
}

// Group checks the form of every declaration, and runs every function of it on rounds random objects: nothing may panic, defaulting must be idempotent,
// and what reads must not write.
func Group(t *testing.T, g kind.Group, rounds int) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := g.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for _, k := range g.Kinds {
		t.Run(k.GVK.Kind, func(t *testing.T) {
			if k.Resource == "" || k.Resource != strings.ToLower(k.Resource) || k.Singular != strings.ToLower(k.GVK.Kind) {
				t.Errorf("names %q, %q", k.Resource, k.Singular)
			}
			if (k.Row == nil) != (len(k.Columns) == 0) {
				t.Error("columns and rows go together")
			}
			if g.Name != k.GVK.Group {
				t.Errorf("group %q of a kind of %q", g.Name, k.GVK.Group)
			}
			for i := range rounds {
				check(t, k, scheme, int64(i))
			}
		})
	}
	for _, v := range g.Virtuals {
		if !scheme.Recognizes(v.GVK) {
			t.Errorf("%v is not in the scheme", v.GVK)
		}
	}
}

func check(t *testing.T, k *kind.Kind, scheme *runtime.Scheme, seed int64) {
	t.Helper()
	ctx := context.Background()
	random := func(seed int64) client.Object {
		o, err := scheme.New(k.GVK)
		if err != nil {
			t.Fatal(err)
		}
		obj := o.(client.Object)
		filler(seed).Fill(obj)
		return obj
	}
	obj, old := random(seed), random(seed+1<<32)
	if k.Default != nil {
		k.Default(old)
		k.Default(obj)
		once := obj.DeepCopyObject()
		k.Default(obj)
		if !apiequality.Semantic.DeepEqual(once, obj) {
			t.Fatalf("seed %d: defaulting twice differs: %s", seed, cmp.Diff(once, obj))
		}
	}
	for _, v := range k.Versions {
		out, err := v.To(obj)
		if err != nil {
			t.Fatalf("seed %d: to %v: %v", seed, v.GVK, err)
		}
		if _, err := v.From(out); err != nil {
			t.Fatalf("seed %d: from %v: %v", seed, v.GVK, err)
		}
	}
	readOnly := func(what string, f func()) {
		t.Helper()
		before := obj.DeepCopyObject()
		f()
		if !apiequality.Semantic.DeepEqual(before, obj) {
			t.Fatalf("seed %d: %s modifies its argument: %s", seed, what, cmp.Diff(before, obj))
		}
	}
	if k.Row != nil {
		readOnly("Row", func() { Row(t, k, obj) })
	}
	for name, f := range k.Fields {
		readOnly("field "+name, func() { f(obj) })
	}
	created := obj.DeepCopyObject().(client.Object)
	if k.PrepareForCreate != nil {
		k.PrepareForCreate(ctx, created)
	}
	if k.Validate != nil {
		readOnly("Validate", func() { k.Validate(ctx, obj) })
		k.Validate(ctx, created)
	}
	if k.Warnings != nil {
		readOnly("Warnings", func() { k.Warnings(ctx, obj, nil); k.Warnings(ctx, obj, old) })
	}
	if k.Scale != nil {
		readOnly("Scale.Get", func() { k.Scale.Get(obj) })
		scaled := obj.DeepCopyObject().(client.Object)
		k.Scale.Set(scaled, 7)
		if n, _, _ := k.Scale.Get(scaled); n != 7 {
			t.Fatalf("seed %d: scaled to 7, got %d", seed, n)
		}
	}
	updated := obj.DeepCopyObject().(client.Object)
	if k.PrepareForUpdate != nil {
		k.PrepareForUpdate(ctx, updated, old)
	}
	if k.ValidateUpdate != nil {
		readOnly("ValidateUpdate", func() { k.ValidateUpdate(ctx, obj, old) })
		k.ValidateUpdate(ctx, updated, old)
	}
	subresources := map[string]*kind.Subresource{"status": k.Status}
	for name, s := range k.Subresources {
		subresources[name] = s
	}
	for _, s := range subresources {
		if s == nil {
			continue
		}
		changed := obj.DeepCopyObject().(client.Object)
		if s.Prepare != nil {
			s.Prepare(ctx, changed, old)
		}
		if s.Validate != nil {
			s.Validate(ctx, changed, old)
		}
	}
}
