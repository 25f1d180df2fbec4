package apiserver_test

import (
	"encoding/json"
	"io"
	"net/netip"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
)

func TestDefaultGroups(t *testing.T) {
	groups, err := apiserver.DefaultGroups(apiserver.GroupOptions{
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, NodePorts: apiserver.PortRange{First: 30000, Last: 32767},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := apiserver.DefaultGroups(apiserver.GroupOptions{}); err != nil {
		t.Error(err)
	}
	scheme := runtime.NewScheme()
	for _, g := range groups {
		if err := g.AddToScheme(scheme); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range groups {
		for _, k := range g.Kinds {
			obj, err := scheme.New(k.GVK)
			if err != nil {
				t.Error(err)
				continue
			}
			if k.Row == nil {
				continue
			}
			// Bookmarks of tables are rows of empty objects.
			if cells := k.Row(obj.(client.Object), time.Now()); len(cells) != len(k.Columns) {
				t.Errorf("%v: a row has %d cells for %d columns", k.GVK, len(cells), len(k.Columns))
			} else if _, err := json.Marshal(cells); err != nil {
				t.Errorf("%v: %v", k.GVK, err)
			}
		}
	}
}

// Every operation on a resource has a schema.
func TestEveryKindHasASchema(t *testing.T) {
	s := start(t, apiserver.Options{})
	resp, err := roundTrip(t, s, request(t, t.Context(), "GET", "/openapi/v2", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for path, item := range doc.Paths {
		for method, op := range item {
			if method == "parameters" {
				continue
			}
			var o struct {
				ID        string `json:"operationId"`
				Action    string `json:"x-kubernetes-action"`
				Responses map[string]struct {
					Schema struct {
						Ref  string `json:"$ref"`
						Type string
					}
				}
			}
			if err := json.Unmarshal(op, &o); err != nil {
				t.Fatal(err)
			}
			if other, ok := ids[o.ID]; ok {
				t.Errorf("%s and %s are both %s", path, other, o.ID)
			}
			ids[o.ID] = path
			if r := o.Responses["200"].Schema; o.Action != "connect" && r.Ref == "" && o.ID != "readCoreV1NamespacedPodLog" {
				t.Errorf("%s %s has no schema", method, path)
			}
		}
	}
	if len(ids) < 400 {
		t.Errorf("document has %d operations", len(ids))
	}
}
