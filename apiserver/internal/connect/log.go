package connect

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/internal/httpapi"
)

// log streams a container's log from its kubelet.
func (c *Connector) log(w http.ResponseWriter, r *http.Request, cr httpapi.ConnectRequest) error {
	o, err := logOptions(r.URL.Query(), cr.Name)
	if err != nil {
		return err
	}
	pod, err := c.pod(r.Context(), cr)
	if err != nil {
		return err
	}
	container, err := containerOf(pod, o.Container)
	if err != nil {
		return err
	}
	if pod.Spec.NodeName == "" {
		// Nothing has run, so nothing was logged.
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	addr, err := c.kubeletAddress(r.Context(), pod.Spec.NodeName)
	if err != nil {
		return err
	}
	u := url.URL{Scheme: "https", Host: addr, Path: "/containerLogs/" + pod.Namespace + "/" + pod.Name + "/" + container, RawQuery: logQuery(o).Encode()}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	transport := c.kubelet
	if o.InsecureSkipTLSVerifyBackend {
		cfg := c.opts.KubeletTLS.Clone()
		cfg.InsecureSkipVerify = true
		transport = newTransport(cfg)
		defer transport.CloseIdleConnections()
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return backendError(r, err)
	}
	defer resp.Body.Close()
	if err := checkResponse(resp, corev1.Resource("pods/log"), cr.Name); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	var out io.Writer = w
	if o.Follow {
		out = flusher{w, http.NewResponseController(w)}
		_, _ = out.Write(nil)
	}
	_, err = io.Copy(out, resp.Body)
	return err
}

// flusher sends every line on as it comes.
type flusher struct {
	w io.Writer
	c *http.ResponseController
}

func (f flusher) Write(b []byte) (int, error) {
	n := 0
	var err error
	if len(b) > 0 {
		n, err = f.w.Write(b)
	}
	if err == nil {
		err = f.c.Flush()
	}
	return n, err
}

// backendError says that a kubelet or pod was not reached.
func backendError(r *http.Request, err error) error {
	if r.Context().Err() != nil {
		return r.Context().Err()
	}
	return apierrors.NewInternalError(err)
}

// maxErrorText bounds what is read of a kubelet's error.
const maxErrorText = 50000

// checkResponse turns a kubelet's error into the API's.
func checkResponse(resp *http.Response, gr schema.GroupResource, name string) error {
	if resp.StatusCode >= http.StatusOK && resp.StatusCode <= http.StatusPartialContent {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorText))
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	text := string(body)
	switch resp.StatusCode {
	case http.StatusInternalServerError:
		return apierrors.NewInternalError(errors.New(text))
	case http.StatusBadRequest:
		return apierrors.NewBadRequest(text)
	}
	return apierrors.NewGenericServerResponse(resp.StatusCode, http.MethodGet, gr, name, text, 0, true)
}

func logOptions(q url.Values, name string) (o corev1.PodLogOptions, err error) {
	o.Container = q.Get("container")
	o.Follow, o.Previous, o.Timestamps = isTrue(q, "follow"), isTrue(q, "previous"), isTrue(q, "timestamps")
	o.InsecureSkipTLSVerifyBackend = isTrue(q, "insecureSkipTLSVerifyBackend")
	for key, dst := range map[string]**int64{"sinceSeconds": &o.SinceSeconds, "tailLines": &o.TailLines, "limitBytes": &o.LimitBytes} {
		v := q.Get(key)
		if v == "" {
			continue
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return o, apierrors.NewBadRequest(err.Error())
		}
		*dst = &n
	}
	if v := q.Get("sinceTime"); v != "" {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return o, apierrors.NewBadRequest(err.Error())
		}
		o.SinceTime = &metav1.Time{Time: t}
	}
	if v := q.Get("stream"); v != "" {
		o.Stream = &v
	}
	if errs := validateLogOptions(&o); len(errs) > 0 {
		return o, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("PodLogOptions").GroupKind(), name, errs)
	}
	return o, nil
}

func validateLogOptions(o *corev1.PodLogOptions) field.ErrorList {
	var errs field.ErrorList
	if o.TailLines != nil && *o.TailLines < 0 {
		errs = append(errs, field.Invalid(field.NewPath("tailLines"), *o.TailLines, "must be greater than or equal to 0"))
	}
	if o.LimitBytes != nil && *o.LimitBytes < 1 {
		errs = append(errs, field.Invalid(field.NewPath("limitBytes"), *o.LimitBytes, "must be greater than 0"))
	}
	switch {
	case o.SinceSeconds != nil && o.SinceTime != nil:
		errs = append(errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	case o.SinceSeconds != nil && *o.SinceSeconds < 1:
		errs = append(errs, field.Invalid(field.NewPath("sinceSeconds"), *o.SinceSeconds, "must be greater than 0"))
	}
	if o.Stream != nil {
		all := []string{corev1.LogStreamAll, corev1.LogStreamStdout, corev1.LogStreamStderr}
		switch *o.Stream {
		case corev1.LogStreamAll:
		case corev1.LogStreamStdout, corev1.LogStreamStderr:
			if o.TailLines != nil {
				errs = append(errs, field.Forbidden(field.NewPath(""), "`tailLines` and specific `stream` are mutually exclusive for now"))
			}
		default:
			errs = append(errs, field.NotSupported(field.NewPath("stream"), *o.Stream, all))
		}
	}
	return errs
}

// logQuery is what a kubelet is asked.
func logQuery(o corev1.PodLogOptions) url.Values {
	q := url.Values{}
	for k, v := range map[string]bool{"follow": o.Follow, "previous": o.Previous, "timestamps": o.Timestamps} {
		if v {
			q.Set(k, "true")
		}
	}
	for k, v := range map[string]*int64{"sinceSeconds": o.SinceSeconds, "tailLines": o.TailLines, "limitBytes": o.LimitBytes} {
		if v != nil {
			q.Set(k, strconv.FormatInt(*v, 10))
		}
	}
	if o.SinceTime != nil {
		q.Set("sinceTime", o.SinceTime.Format(time.RFC3339))
	}
	if o.Stream != nil {
		q.Set("stream", *o.Stream)
	}
	return q
}

// isTrue reads a boolean as apimachinery's conversion of queries does: a key without a value is set.
func isTrue(q url.Values, key string) bool {
	v, ok := q[key]
	if !ok || len(v) == 0 {
		return false
	}
	switch v[0] {
	case "false", "0", "False", "FALSE":
		return false
	}
	return true
}
