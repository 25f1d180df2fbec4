package core

import (
	"context"
	"fmt"
	"math/rand"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/randfill"

	"github.com/keelson/keelson/apiserver/internal/ipalloc"
	"github.com/keelson/keelson/apiserver/kind"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// testOptions serve Services on two ranges.
func testOptions(t testing.TB, prefixes ...string) Options {
	t.Helper()
	opts := Options{Clock: testingclock.NewFakePassiveClock(now)}
	for _, prefix := range prefixes {
		a, err := ipalloc.NewAddresses(netip.MustParsePrefix(prefix))
		if err != nil {
			t.Fatal(err)
		}
		opts.ServiceIPs = append(opts.ServiceIPs, a)
	}
	ports, err := ipalloc.NewPorts(30000, 32767)
	if err != nil {
		t.Fatal(err)
	}
	opts.NodePorts = ports
	return opts
}

func kindOf(t testing.TB, g kind.Group, name string) *kind.Kind {
	t.Helper()
	for _, k := range g.Kinds {
		if k.GVK.Kind == name {
			return k
		}
	}
	t.Fatalf("no kind %s", name)
	return nil
}

func filler(seed int64) *randfill.Filler {
	return randfill.New().NilChance(.3).NumElements(0, 3).RandSource(rand.NewSource(seed)).Funcs(
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewMilliQuantity(c.Int63n(1<<40)-1000, resource.DecimalSI)
		},
		func(i *intstr.IntOrString, c randfill.Continue) {
			if c.Bool() {
				*i = intstr.FromInt32(c.Int31())
			} else {
				*i = intstr.FromString(c.String(10))
			}
		},
		func(ts *metav1.Time, c randfill.Continue) { *ts = metav1.Unix(c.Int63n(1<<31), 0) },
		func(m *metav1.ManagedFieldsEntry, c randfill.Continue) {},
	)
}

// TestRandomObjects runs every function of every kind on random objects: nothing panics, defaulting twice is
// defaulting once, and a table row has a cell for each column.
func TestRandomObjects(t *testing.T) {
	group := Group(testOptions(t, "10.96.0.0/16", "fd00::/108"))
	scheme := runtime.NewScheme()
	if err := group.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for _, k := range group.Kinds {
		t.Run(k.GVK.Kind, func(t *testing.T) {
			for seed := range int64(25) {
				f := filler(seed)
				make := func() client.Object {
					obj, err := scheme.New(k.GVK)
					if err != nil {
						t.Fatal(err)
					}
					f.Fill(obj)
					return obj.(client.Object)
				}
				obj, old := make(), make()
				exercise(t, ctx, k, obj, old, fmt.Sprint("seed ", seed))
				exercise(t, ctx, k, old.DeepCopyObject().(client.Object), old, fmt.Sprint("same, seed ", seed))
			}
		})
	}
}

func exercise(t *testing.T, ctx context.Context, k *kind.Kind, obj, old client.Object, what string) {
	t.Helper()
	if k.Default != nil {
		k.Default(obj)
		k.Default(old)
		again := obj.DeepCopyObject().(client.Object)
		k.Default(again)
		if !equality.Semantic.DeepEqual(obj, again) {
			t.Errorf("%s: defaulting again changes:\n%s", what, cmp.Diff(obj, again))
		}
	}
	clone := func() client.Object { return obj.DeepCopyObject().(client.Object) }
	created, updated := clone(), clone()
	k.PrepareForCreate(ctx, created)
	k.PrepareForUpdate(ctx, updated, old)
	if k.Validate != nil {
		k.Validate(ctx, created)
	}
	if k.ValidateUpdate != nil {
		k.ValidateUpdate(ctx, updated, old)
	}
	if k.Warnings != nil {
		k.Warnings(ctx, created, nil)
		k.Warnings(ctx, updated, old)
	}
	subresources := []*kind.Subresource{k.Status}
	for _, s := range k.Subresources {
		subresources = append(subresources, s)
	}
	for _, s := range subresources {
		if s == nil {
			continue
		}
		o := clone()
		if s.Prepare != nil {
			s.Prepare(ctx, o, old)
		}
		if s.Validate != nil {
			s.Validate(ctx, o, old)
		}
		if s.Warnings != nil {
			s.Warnings(ctx, o, old)
		}
	}
	for name, get := range k.Fields {
		_ = get(obj)
		_ = name
	}
	if k.Claims != nil {
		k.Claims(obj)
	}
	if k.GracePeriod != nil {
		k.GracePeriod(ctx, clone(), nil)
	}
	if k.Begin != nil {
		o := clone()
		if done, err := k.Begin(ctx, o, nil, false); err == nil && done != nil {
			done(false)
		}
	}
	before := clone()
	row := k.Row(obj, now)
	if !equality.Semantic.DeepEqual(before, obj) {
		t.Errorf("%s: Row modifies its object", what)
	}
	if len(row) != len(k.Columns) {
		t.Errorf("%s: %d cells, %d columns", what, len(row), len(k.Columns))
	}
	for i, cell := range row {
		switch cell.(type) {
		case string, int64, bool, float64:
		default:
			t.Errorf("%s: column %s has a %T", what, k.Columns[i].Name, cell)
		}
	}
	for _, v := range k.Versions {
		out, err := v.To(obj)
		if err != nil {
			t.Fatal(err)
		}
		back, err := v.From(out)
		if err != nil {
			t.Fatal(err)
		}
		if v.Validate != nil {
			v.Validate(ctx, clone(), nil)
			v.Validate(ctx, clone(), old)
		}
		back.GetObjectKind().SetGroupVersionKind(obj.GetObjectKind().GroupVersionKind())
		if !equality.Semantic.DeepEqual(obj, back) {
			t.Errorf("%s: %s loses:\n%s", what, v.GVK, cmp.Diff(obj, back))
		}
	}
}
