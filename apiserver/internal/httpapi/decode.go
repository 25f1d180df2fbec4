package httpapi

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kubejson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apiserver/pkg/warning"
	"sigs.k8s.io/yaml"

	"github.com/keelson/keelson/apiserver/internal/core"
)

// decoders of one scheme.
type decoders struct {
	scheme                   *runtime.Scheme
	json, strictJSON         runtime.Decoder
	yaml, strictYAML, protob runtime.Decoder
}

func newDecoders(s *runtime.Scheme) *decoders {
	text := func(yaml, strict bool) runtime.Decoder {
		return kubejson.NewSerializerWithOptions(kubejson.DefaultMetaFactory, s, s, kubejson.SerializerOptions{Yaml: yaml, Strict: strict})
	}
	return &decoders{
		scheme: s, json: text(false, false), strictJSON: text(false, true), yaml: text(true, false), strictYAML: text(true, true),
		protob: protobuf.NewSerializer(s, s),
	}
}

// of returns the decoder of a media type; protobuf has no unknown fields to be strict about.
func (d *decoders) of(mediaType string, strict bool) runtime.Decoder {
	switch {
	case mediaType == mediaProto:
		return d.protob
	case mediaType == mediaYAML && strict:
		return d.strictYAML
	case mediaType == mediaYAML:
		return d.yaml
	case strict:
		return d.strictJSON
	}
	return d.json
}

// maxPooled is the largest buffer kept for another request.
const maxPooled = 64 << 10

var noRelease = func() {}

// readBody returns the request's body; release gives its memory back and must not be called before the last use.
func (h *Handler) readBody(r *http.Request) (body []byte, release func(), err error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil, noRelease, nil
	}
	limit := h.opts.MaxBodyBytes
	if r.ContentLength > limit {
		return nil, noRelease, errTooLarge(limit)
	}
	buf := h.buffers.Get().(*[]byte)
	b := (*buf)[:0]
	if n := int(r.ContentLength); n > cap(b) {
		b = make([]byte, 0, n+1)
	}
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)) > limit {
			return nil, noRelease, errTooLarge(limit)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, noRelease, apierrors.NewBadRequest(fmt.Sprintf("reading the request's body: %v", err))
		}
	}
	return b, func() {
		if cap(b) <= maxPooled {
			*buf = b
			h.buffers.Put(buf)
		}
	}, nil
}

func newBuffers() *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}
}

// decode reads the body as the type that the resource, or its subresource, takes. Unknown and repeated fields are ignored, warned of
// or refused as the directive says.
func (h *Handler) decode(ctx context.Context, r *http.Request, res *core.Resource, sub, directive string) (runtime.Object, error) {
	mediaType, err := bodyType(r)
	if err != nil {
		return nil, err
	}
	into, err := res.New(sub)
	if err != nil {
		return nil, err
	}
	want := into.GetObjectKind().GroupVersionKind()
	body, release, err := h.readBody(r)
	if err != nil {
		return nil, err
	}
	defer release()
	if directive == "" {
		directive = metav1.FieldValidationWarn
	}
	def := want
	obj, got, err := h.decoders.of(mediaType, directive != metav1.FieldValidationIgnore).Decode(body, &def, into)
	if err != nil {
		strict, ok := runtime.AsStrictDecodingError(err)
		if !ok || obj == nil || directive != metav1.FieldValidationWarn {
			return nil, decodeError(err, want, got, body)
		}
		for _, e := range strict.Errors() {
			for _, text := range splitYAMLErrors(e.Error()) {
				warning.AddWarning(ctx, "", text)
			}
		}
	}
	if got.GroupKind() != want.GroupKind() {
		return nil, decodeError(fmt.Errorf("converting (%s) to (%s): unknown conversion", typeName(obj), internalName(want)), want, got, body)
	}
	if got.GroupVersion() != want.GroupVersion() {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)",
			got.GroupVersion(), want.GroupVersion()))
	}
	if obj != into {
		return nil, decodeError(fmt.Errorf("converting (%s) to (%s): unknown conversion", typeName(obj), internalName(want)), want, got, body)
	}
	obj.GetObjectKind().SetGroupVersionKind(want)
	return obj, nil
}

// internalName is what kube-apiserver's messages call a type: its own internal version, PACKAGE.KIND.
func internalName(gvk schema.GroupVersionKind) string {
	group, _, _ := strings.Cut(gvk.Group, ".")
	if group == "" || gvk.Kind == "Event" {
		group = "core"
	}
	return group + "." + gvk.Kind
}

func typeName(obj runtime.Object) string { return strings.TrimPrefix(fmt.Sprintf("%T", obj), "*") }

func decodeError(err error, want schema.GroupVersionKind, got *schema.GroupVersionKind, body []byte) error {
	if got != nil && got.Kind != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", got.Kind, got.Version, want.Kind, err))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, err, summary(body)))
}

// summary shows the beginning of a body that is not understood.
func summary(body []byte) string {
	const most = 30
	more := ""
	cut := body
	if len(body) > most {
		cut, more = body[:most], " ..."
	}
	switch {
	case len(body) == 0:
		return "<empty>"
	case body[0] == '{':
		return string(cut) + more
	}
	return hex.EncodeToString(cut) + more
}

// splitYAMLErrors takes the list of mistakes apart that the YAML decoder returns as one error.
func splitYAMLErrors(s string) []string {
	list, ok := strings.CutPrefix(s, "error converting YAML to JSON: yaml: unmarshal errors:\n")
	if !ok {
		if list, ok = strings.CutPrefix(s, "yaml: unmarshal errors:\n"); !ok {
			return []string{s}
		}
	}
	lines := strings.Split(list, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines
}

// checkName compares an object to be updated with its path.
func checkName(obj runtime.Object, namespace, name string) error {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil
	}
	switch {
	case m.GetName() == "":
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", name))
	case m.GetName() != name:
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", m.GetName(), name))
	case namespace != "" && m.GetNamespace() != "" && m.GetNamespace() != namespace:
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// decodeDeleteOptions accepts DeleteOptions of any group, as Kubernetes does.
func decodeDeleteOptions(mediaType string, body []byte) (o metav1.DeleteOptions, err error) {
	switch mediaType {
	case mediaProto:
		magic := []byte("k8s\x00")
		if len(body) < len(magic) || string(body[:len(magic)]) != string(magic) {
			return o, errors.New("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
		}
		var u runtime.Unknown
		if err := u.Unmarshal(body[len(magic):]); err != nil {
			return o, err
		}
		if err := o.Unmarshal(u.Raw); err != nil {
			return o, err
		}
		o.TypeMeta = metav1.TypeMeta{APIVersion: u.APIVersion, Kind: u.Kind}
	case mediaYAML:
		err = yaml.Unmarshal(body, &o)
	default:
		if err = json.Unmarshal(body, &o); err != nil && !json.Valid(body) {
			err = fmt.Errorf("couldn't get version/kind; json parse error: %w", err)
		}
	}
	if err == nil && o.Kind != "" && o.Kind != "DeleteOptions" {
		err = errors.New("decoded object cannot be converted to DeleteOptions")
	}
	return o, err
}
