package httpapi

import (
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/munnerz/goautoneg"

	"github.com/keelson/keelson/apiserver/internal/core"
)

const aggregatedType = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// discovery holds the documents that say what is served.
type discovery struct {
	docs map[string]*document
}

// document is a plain document and, for /api and /apis, its aggregated form.
type document struct {
	plain      runtime.Object
	aggregated []byte
	etag       string
}

func (d *discovery) document(path string) *document { return d.docs[path] }

// entry is one line of a group-version's resource list.
type entry struct {
	metav1.APIResource
	parent string // the resource that a subresource belongs to
}

func newDiscovery(resources []*core.Resource, connects []Connect) (*discovery, error) {
	var order []schema.GroupVersion
	entries := map[schema.GroupVersion][]entry{}
	add := func(gv schema.GroupVersion, e entry) {
		if entries[gv] == nil {
			order = append(order, gv)
		}
		if e.Group == gv.Group && e.Version == gv.Version {
			e.Group, e.Version = "", ""
		}
		entries[gv] = append(entries[gv], e)
	}
	for _, r := range resources {
		gv := r.GVR.GroupVersion()
		add(gv, entry{APIResource: metav1.APIResource{
			Name: r.GVR.Resource, SingularName: r.Singular, Namespaced: r.Namespaced, Kind: r.GVK.Kind, Group: r.GVK.Group, Version: r.GVK.Version,
			Verbs: sorted(r.Verbs), ShortNames: r.ShortNames, Categories: r.Categories,
		}})
		sub := func(name string, gvk schema.GroupVersionKind, verbs []string) {
			add(gv, entry{parent: r.GVR.Resource, APIResource: metav1.APIResource{
				Name: r.GVR.Resource + "/" + name, Namespaced: r.Namespaced, Kind: gvk.Kind, Group: gvk.Group, Version: gvk.Version, Verbs: sorted(verbs),
			}})
		}
		for _, s := range r.Subresources() {
			sub(s.Name, s.GVK, s.Verbs)
		}
		for _, c := range connects {
			if gv.Group == "" && c.Resource == r.GVR.Resource {
				sub(c.Subresource, gv.WithKind(c.Kind), c.Verbs)
			}
		}
	}
	d := &discovery{docs: map[string]*document{}}
	coreList, otherList := &apidiscoveryv2.APIGroupDiscoveryList{}, &apidiscoveryv2.APIGroupDiscoveryList{}
	groups := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}}
	var coreVersions []string
	for _, name := range groupsOf(order) {
		g := metav1.APIGroup{TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}, Name: name}
		agg := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: name}}
		for _, gv := range order {
			if gv.Group != name {
				continue
			}
			slices.SortStableFunc(entries[gv], func(a, b entry) int { return strings.Compare(a.Name, b.Name) })
			g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version})
			agg.Versions = append(agg.Versions, aggregate(gv, entries[gv]))
			list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
			if name == "" {
				list.APIVersion = "" // as kube-apiserver has it, since before there were groups
			}
			for _, e := range entries[gv] {
				list.APIResources = append(list.APIResources, e.APIResource)
			}
			path := "/apis/" + gv.String()
			if name == "" {
				path = "/api/" + gv.Version
				coreVersions = append(coreVersions, gv.Version)
			}
			d.docs[path] = &document{plain: list}
		}
		g.PreferredVersion = g.Versions[0]
		if name == "" {
			coreList.Items = append(coreList.Items, agg)
			continue
		}
		otherList.Items = append(otherList.Items, agg)
		own := g
		d.docs["/apis/"+name] = &document{plain: &own}
		g.TypeMeta = metav1.TypeMeta{}
		groups.Groups = append(groups.Groups, g)
	}
	d.docs["/api"] = &document{plain: &metav1.APIVersions{
		TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: coreVersions,
		ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{},
	}}
	d.docs["/apis"] = &document{plain: groups}
	for path, list := range map[string]*apidiscoveryv2.APIGroupDiscoveryList{"/api": coreList, "/apis": otherList} {
		list.TypeMeta = metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"}
		raw, err := json.Marshal(list)
		if err != nil {
			return nil, fmt.Errorf("httpapi: discovery: %w", err)
		}
		sum := sha512.Sum512(raw)
		d.docs[path].aggregated, d.docs[path].etag = raw, strconv.Quote(strings.ToUpper(hex.EncodeToString(sum[:])))
	}
	return d, nil
}

func sorted(verbs []string) metav1.Verbs {
	out := slices.Clone(verbs)
	slices.Sort(out)
	return out
}

// groupsOf keeps the order of declaration.
func groupsOf(order []schema.GroupVersion) []string {
	var out []string
	for _, gv := range order {
		if !slices.Contains(out, gv.Group) {
			out = append(out, gv.Group)
		}
	}
	return out
}

func aggregate(gv schema.GroupVersion, entries []entry) apidiscoveryv2.APIVersionDiscovery {
	v := apidiscoveryv2.APIVersionDiscovery{Version: gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
	kindOf := func(e entry) *metav1.GroupVersionKind {
		// Empty for a kind of gv itself.
		return &metav1.GroupVersionKind{Group: e.Group, Version: e.Version, Kind: e.Kind}
	}
	index := map[string]int{}
	for _, e := range entries {
		if e.parent != "" {
			continue
		}
		scope := apidiscoveryv2.ScopeCluster
		if e.Namespaced {
			scope = apidiscoveryv2.ScopeNamespace
		}
		index[e.Name] = len(v.Resources)
		v.Resources = append(v.Resources, apidiscoveryv2.APIResourceDiscovery{
			Resource: e.Name, ResponseKind: kindOf(e), Scope: scope, SingularResource: e.SingularName,
			Verbs: e.Verbs, ShortNames: e.ShortNames, Categories: e.Categories,
		})
	}
	for _, e := range entries {
		if i, ok := index[e.parent]; ok && e.parent != "" {
			v.Resources[i].Subresources = append(v.Resources[i].Subresources, apidiscoveryv2.APISubresourceDiscovery{
				Subresource: strings.TrimPrefix(e.Name, e.parent+"/"), ResponseKind: kindOf(e), Verbs: e.Verbs,
			})
		}
	}
	return v
}

// serve writes the form that the client prefers.
func (d *document) serve(h *Handler, w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Vary", "Accept")
	if d.aggregated != nil && prefersAggregated(r.Header.Get("Accept")) {
		header.Set("Etag", d.etag)
		if r.Header.Get("If-None-Match") == d.etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		a := accepted{mediaType: mediaJSON}
		h.writeTyped(w, r, a, aggregatedType, d.aggregated)
		return
	}
	a, err := negotiate(r, false)
	if err != nil {
		if d.aggregated == nil {
			h.sendError(w, r, err)
			return
		}
		a = accepted{mediaType: mediaJSON}
	}
	plain := d.plain
	if v, ok := plain.(*metav1.APIVersions); ok {
		c := *v
		c.ServerAddressByClientCIDRs = []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: r.Host}}
		plain = &c
	}
	h.writeRuntime(w, r, http.StatusOK, a, plain)
}

func prefersAggregated(accept string) bool {
	for _, c := range goautoneg.ParseAccept(accept) {
		if c.Type != "application" && c.Type != "*" || c.SubType != "json" && c.SubType != "vnd.kubernetes.protobuf" && c.SubType != "*" {
			continue
		}
		if c.Params["as"] == "" {
			return false
		}
		if c.SubType == "json" && c.Params["g"] == "apidiscovery.k8s.io" && c.Params["v"] == "v2" && c.Params["as"] == "APIGroupDiscoveryList" {
			return true
		}
	}
	return false
}

func (h *Handler) writeTyped(w http.ResponseWriter, r *http.Request, a accepted, contentType string, body []byte) {
	header := w.Header()
	if wantsPretty(r) {
		a.pretty = true
		h.writeBody(w, r, http.StatusOK, a, body)
		return
	}
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}
