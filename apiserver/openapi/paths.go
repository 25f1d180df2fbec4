package openapi

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

type object = map[string]any

const gvkExtension = "x-kubernetes-group-version-kind"

var (
	produced = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}
	watched  = []string{"application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"}
	patched  = []string{
		"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml",
	}
)

const (
	modelDeleteOptions = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
	modelStatus        = "io.k8s.apimachinery.pkg.apis.meta.v1.Status"
	modelPatch         = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
	modelWatchEvent    = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent"
)

// param is a query parameter; typ is string, boolean or integer.
type param struct{ name, typ, description string }

var (
	paramPretty      = param{"pretty", "string", "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget)."}
	paramDryRun      = param{"dryRun", "string", "When present, indicates that modifications should not be persisted. An invalid or unrecognized dryRun directive will result in an error response and no further processing of the request. Valid values are: - All: all dry run stages will be processed"}
	paramManager     = param{"fieldManager", "string", "fieldManager is a name associated with the actor or entity that is making these changes. The value must be less than or 128 characters long, and only contain printable characters, as defined by https://golang.org/pkg/unicode/#IsPrint."}
	paramValidation  = param{"fieldValidation", "string", "fieldValidation instructs the server on how to handle objects in the request (POST/PUT/PATCH) containing unknown or duplicate fields. Valid values are: Ignore, Warn (the default) and Strict."}
	paramForce       = param{"force", "boolean", "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people. Force flag must be unset for non-apply patch requests."}
	paramGrace       = param{"gracePeriodSeconds", "integer", "The duration in seconds before the object should be deleted. Value must be non-negative integer. The value zero indicates delete immediately. If this value is nil, the default grace period for the specified type will be used."}
	paramOrphan      = param{"orphanDependents", "boolean", "Deprecated: please use the PropagationPolicy. Should the dependent objects be orphaned. If true/false, the \"orphan\" finalizer will be added to/removed from the object's finalizers list."}
	paramPropagation = param{"propagationPolicy", "string", "Whether and how garbage collection will be performed. Acceptable values are: 'Orphan', 'Background', 'Foreground'."}
	paramUnsafe      = param{"ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", "If set to true, it will trigger an unsafe deletion of the resource in case the normal deletion flow fails with a corrupt object error."}

	createParams = []param{paramPretty, paramDryRun, paramManager, paramValidation}
	patchParams  = []param{paramPretty, paramDryRun, paramManager, paramValidation, paramForce}
	deleteParams = []param{paramPretty, paramDryRun, paramGrace, paramUnsafe, paramOrphan, paramPropagation}
	listParams   = []param{
		paramPretty,
		{"allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\"."},
		{"continue", "string", "The continue option should be set when retrieving more results from the server."},
		{"fieldSelector", "string", "A selector to restrict the list of returned objects by their fields. Defaults to everything."},
		{"labelSelector", "string", "A selector to restrict the list of returned objects by their labels. Defaults to everything."},
		{"limit", "integer", "limit is a maximum number of responses to return for a list call."},
		{"resourceVersion", "string", "resourceVersion sets a constraint on what resource versions a request may be served from."},
		{"resourceVersionMatch", "string", "resourceVersionMatch determines how resourceVersion is applied to list calls."},
		{"sendInitialEvents", "boolean", "sendInitialEvents=true may be set together with watch=true. In that case, the watch stream will begin with synthetic events to produce the current state of objects in the collection."},
		{"timeoutSeconds", "integer", "Timeout for the list/watch call. This limits the duration of the call, regardless of any activity or inactivity."},
		{"watch", "boolean", "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications."},
	}
	logParams = []param{
		{"container", "string", "The container for which to stream logs. Defaults to only container if there is one container in the pod."},
		{"follow", "boolean", "Follow the log stream of the pod. Defaults to false."},
		{"insecureSkipTLSVerifyBackend", "boolean", "insecureSkipTLSVerifyBackend indicates that the apiserver should not confirm the validity of the serving certificate of the backend it is connecting to."},
		{"limitBytes", "integer", "If set, the number of bytes to read from the server before terminating the log output."},
		paramPretty,
		{"previous", "boolean", "Return previous terminated container logs. Defaults to false."},
		{"sinceSeconds", "integer", "A relative time in seconds before the current time from which to show logs."},
		{"tailLines", "integer", "If set, the number of lines from the end of the logs to show."},
		{"timestamps", "boolean", "If true, add an RFC3339 or RFC3339Nano timestamp at the beginning of every line of log output. Defaults to false."},
	}
)

// operation is one method of one path, independent of the flavour of OpenAPI.
type operation struct {
	method, id, action, description, tag string
	params                               []param
	bodyModel, resultModel               string
	consumes, produces                   []string
	codes                                []string
	gvk                                  schema.GroupVersionKind
}

// path is one path and what can be done there.
type path struct {
	template   string
	namespace  bool
	name       bool
	subpath    bool
	operations []operation
}

// pathsOf returns the paths of a resource.
func pathsOf(r Resource, d *schemas) []path {
	base := "/" + groupVersionPath(r.GroupVersion())
	collection := base + "/" + r.Resource
	if r.Namespaced {
		collection = base + "/namespaces/{namespace}/" + r.Resource
	}
	b := builder{r: r, d: d, group: strings.ReplaceAll(groupVersionPath(r.GroupVersion()), "api", "")}
	b.tag = groupTag(r.Group) + "_" + r.Version
	if r.Subresource != "" {
		p := path{template: collection + "/{name}/" + r.Subresource, namespace: r.Namespaced, name: true}
		if r.Connect {
			p.operations = b.connect("")
			if r.Subresource != "proxy" {
				return []path{p}
			}
			sub := path{template: p.template + "/{path}", namespace: p.namespace, name: true, subpath: true, operations: b.connect("WithPath")}
			return []path{p, sub}
		}
		p.operations = b.item()
		return []path{p}
	}
	out := []path{{template: collection, namespace: r.Namespaced, operations: b.collection()}}
	if ops := b.item(); slices.ContainsFunc(ops, func(o operation) bool { return o.method != "post" }) {
		out = append(out, path{template: collection + "/{name}", namespace: r.Namespaced, name: true, operations: b.without(ops, "post")})
	}
	if r.Namespaced && slices.Contains(r.Verbs, "list") {
		list := b.list()
		list.id = strings.Replace(list.id, "Namespaced", "", 1) + "ForAllNamespaces"
		out = append(out, path{template: base + "/" + r.Resource, operations: []operation{list}})
	}
	return out
}

// groupTag turns a group's name into the words of operation ids: apps, rbacAuthorization, core.
func groupTag(group string) string {
	if group == "" {
		return "core"
	}
	parts := strings.Split(strings.TrimSuffix(group, ".k8s.io"), ".")
	for i := 1; i < len(parts); i++ {
		parts[i] = title(parts[i])
	}
	return strings.Join(parts, "")
}

func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

type builder struct {
	r     Resource
	d     *schemas
	group string
	tag   string
}

func (b builder) op(method, verb, action string) operation {
	name := b.r.GVK.Kind
	if b.r.Subresource != "" && !b.r.Connect {
		name = b.parentKind() + strings.Join(titles(b.r.Subresource), "")
	}
	if b.r.Connect {
		name = b.parentKind() + title(b.r.Subresource)
	}
	id := verb + title(groupTag(b.r.Group)) + title(b.r.Version)
	if b.r.Namespaced {
		id += "Namespaced"
	}
	return operation{
		method: method, action: action, tag: b.tag, id: id + name, gvk: b.r.GVK, resultModel: b.d.byGVK[b.r.GVK], produces: produced, codes: []string{"200"},
	}
}

func titles(s string) []string {
	parts := strings.Split(s, "/")
	for i := range parts {
		parts[i] = title(parts[i])
	}
	return parts
}

// parentKind guesses the kind of the object that a subresource with another type belongs to, for operation ids only.
func (b builder) parentKind() string {
	s := strings.TrimSuffix(b.r.Resource, "s")
	return title(s)
}

func (b builder) has(verb string) bool { return slices.Contains(b.r.Verbs, verb) }

func (b builder) without(ops []operation, method string) []operation {
	return slices.DeleteFunc(slices.Clone(ops), func(o operation) bool { return o.method == method })
}

func (b builder) list() operation {
	o := b.op("get", "list", "list")
	o.description = "list or watch objects of kind " + b.r.GVK.Kind
	o.params = listParams
	o.resultModel = b.d.byGVK[b.r.GVK.GroupVersion().WithKind(b.r.GVK.Kind+"List")]
	o.produces = slices.Concat(produced, watched)
	return o
}

func (b builder) collection() []operation {
	var ops []operation
	if b.has("list") {
		ops = append(ops, b.list())
	}
	if b.has("create") {
		ops = append(ops, b.create())
	}
	if b.has("deletecollection") {
		o := b.op("delete", "delete", "deletecollection")
		o.id = strings.Replace(o.id, title(b.r.Version), title(b.r.Version)+"Collection", 1)
		o.description = "delete collection of " + b.r.GVK.Kind
		o.params = append(slices.Clone(deleteParams), slices.DeleteFunc(slices.Clone(listParams), func(p param) bool {
			return p.name == "pretty" || p.name == "watch" || p.name == "allowWatchBookmarks"
		})...)
		o.bodyModel, o.resultModel = modelDeleteOptions, modelStatus
		ops = append(ops, o)
	}
	return ops
}

func (b builder) create() operation {
	o := b.op("post", "create", "post")
	o.description = "create " + article(b.r.GVK.Kind)
	o.params, o.bodyModel, o.codes = createParams, o.resultModel, []string{"200", "201", "202"}
	return o
}

func (b builder) item() []operation {
	kind, of := b.r.GVK.Kind, ""
	if b.r.Subresource != "" {
		of = b.r.Subresource + " of "
	}
	var ops []operation
	if b.has("get") {
		o := b.op("get", "read", "get")
		o.description, o.params = "read "+of+"the specified "+kind, []param{paramPretty}
		ops = append(ops, o)
	}
	if b.has("create") {
		ops = append(ops, b.create())
	}
	if b.has("update") {
		o := b.op("put", "replace", "put")
		o.description, o.params, o.bodyModel = "replace "+of+"the specified "+kind, createParams, o.resultModel
		o.codes = []string{"200", "201"}
		ops = append(ops, o)
	}
	if b.has("patch") {
		o := b.op("patch", "patch", "patch")
		o.description, o.params, o.bodyModel = "partially update "+of+"the specified "+kind, patchParams, modelPatch
		o.consumes, o.codes = patched, []string{"200", "201"}
		ops = append(ops, o)
	}
	if b.has("delete") {
		o := b.op("delete", "delete", "delete")
		o.description, o.params, o.bodyModel = "delete "+article(kind), deleteParams, modelDeleteOptions
		o.resultModel, o.codes = modelStatus, []string{"200", "202"}
		ops = append(ops, o)
	}
	return ops
}

var methodOfVerb = map[string][]string{
	"get": {"get"}, "create": {"post"}, "update": {"put"}, "patch": {"patch"}, "delete": {"delete"},
}

func (b builder) connect(suffix string) []operation {
	var ops []operation
	for _, verb := range b.r.Verbs {
		for _, method := range methodOfVerb[verb] {
			o := b.op(method, "connect"+title(method), "connect")
			o.id += suffix
			o.description = "connect " + strings.ToUpper(method) + " requests to " + b.r.Subresource + " of " + b.parentKind()
			o.resultModel, o.produces = "", []string{"*/*"}
			if b.r.Subresource == "log" {
				o.id, o.action, o.params = strings.Replace(o.id, "connectGet", "read", 1), "get", logParams
				o.description = "read log of the specified " + b.parentKind()
				o.produces = []string{"text/plain", "application/json", "application/yaml"}
			}
			ops = append(ops, o)
		}
	}
	return ops
}

func article(kind string) string {
	if kind != "" && strings.ContainsRune("AEIOU", rune(kind[0])) {
		return "an " + kind
	}
	return "a " + kind
}
