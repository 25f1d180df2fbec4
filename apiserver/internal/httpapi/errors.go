package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// statusOf turns any error into what is sent. Errors without a status of their own are the server's fault.
func statusOf(err error) *metav1.Status {
	var s metav1.Status
	var as apierrors.APIStatus
	switch {
	case errors.As(err, &as):
		s = as.Status()
	case errors.Is(err, context.DeadlineExceeded):
		s = apierrors.NewTimeoutError("request did not complete within the allotted timeout", 0).Status()
	case errors.Is(err, context.Canceled):
		// The client is gone: the code is for the metrics only.
		s = metav1.Status{Code: 499, Reason: metav1.StatusReasonUnknown, Message: err.Error()}
	default:
		s = metav1.Status{Code: http.StatusInternalServerError, Message: err.Error()}
	}
	if s.Status == "" {
		s.Status = metav1.StatusFailure
	}
	if s.Code == 0 {
		s.Code = http.StatusInternalServerError
		if s.Status == metav1.StatusSuccess {
			s.Code = http.StatusOK
		}
	}
	s.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return &s
}

// sendError writes err in the media type that the client accepts.
func (h *Handler) sendError(w http.ResponseWriter, r *http.Request, err error) {
	s := statusOf(err)
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	if d := s.Details; d != nil && d.RetryAfterSeconds > 0 {
		header.Set("Retry-After", strconv.Itoa(int(d.RetryAfterSeconds)))
	}
	if s.Code == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", `Basic realm="kubernetes-master"`)
	}
	if s.Code == http.StatusMethodNotAllowed && header.Get("Allow") == "" {
		header.Set("Allow", "")
	}
	accept, nerr := negotiate(r, false)
	if nerr != nil {
		accept = accepted{mediaType: mediaJSON}
	}
	accept.convert = conversion{}
	h.writeRuntime(w, r, int(s.Code), accept, s)
}

// errNoSuchPath is the answer to a path that is none of the API's. It is sent as text.
var errNoSuchPath = errors.New("404 page not found")

func errNotFoundPath() error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, "", schema.GroupResource{}, "", "", 0, false)
}

func errMethod() error {
	return apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, "", schema.GroupResource{}, "", "", 0, false)
}

func errUnauthorized() error { return apierrors.NewUnauthorized("Unauthorized") }

func errTooManyRequests() error {
	return apierrors.NewTooManyRequests("Too many requests, please try again later.", 1)
}

func errTooLarge(limit int64) error {
	return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", limit))
}

func errNotAcceptable(types []string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: " + strings.Join(types, ", "),
	}}
}

// errUnknownRepresentation is the answer to a client that accepts no media type there is.
func errUnknownRepresentation(types []string) error {
	err := apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "", schema.GroupResource{}, "", "", 0, false)
	err.ErrStatus.Message = "406: Not Acceptable\n\nAvailable representations: " + strings.Join(types, ", ")
	return err
}

// errUnsupportedPatch is the answer to a patch of a type that nobody knows.
func errUnsupportedPatch() error {
	err := apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "", schema.GroupResource{}, "", "", 0, false)
	err.ErrStatus.Message = "415: Unsupported Media Type"
	return err
}

func errUnsupportedMediaType(types []string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: " + strings.Join(types, ", "),
	}}
}

// htmlSafe keeps browsers from reading a message as markup.
var htmlSafe = strings.NewReplacer(`&`, "&amp;", `<`, "&lt;", `>`, "&gt;")

// errForbidden is the answer to a request that the authorizer did not allow.
func errForbidden(a authorizer.Attributes, reason string) error {
	name := ""
	if u := a.GetUser(); u != nil {
		name = u.GetName()
	}
	var msg string
	switch {
	case !a.IsResourceRequest():
		msg = fmt.Sprintf("User %q cannot %s path %q", name, a.GetVerb(), a.GetPath())
	default:
		resource := a.GetResource()
		if s := a.GetSubresource(); s != "" {
			resource += "/" + s
		}
		msg = fmt.Sprintf("User %q cannot %s resource %q in API group %q", name, a.GetVerb(), resource, a.GetAPIGroup())
		if ns := a.GetNamespace(); ns != "" {
			msg += fmt.Sprintf(" in the namespace %q", ns)
		} else {
			msg += " at the cluster scope"
		}
	}
	msg = htmlSafe.Replace(msg)
	if reason != "" {
		msg += ": " + reason
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.GetAPIGroup(), Resource: a.GetResource()}, a.GetName(), errors.New(msg))
}
