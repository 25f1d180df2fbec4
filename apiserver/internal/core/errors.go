package core

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
	"github.com/keelson/keelson/store"
)

// optimisticLock is the text of Kubernetes for a lost race.
const optimisticLock = "the object has been modified; please apply your changes to the latest version and try again"

func conflict(r *Resource, name string) error {
	return apierrors.NewConflict(r.GVR.GroupResource(), name, errors.New(optimisticLock))
}

func notFound(t Target) error {
	return apierrors.NewNotFound(t.Resource.GVR.GroupResource(), t.Name)
}

func errNotFoundPath() error {
	return apierrors.NewGenericServerResponse(404, "GET", schema.GroupResource{}, "", "404 page not found", 0, true)
}

func invalidOptions(kind string, errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", errs)
}

// storeError maps what the store and the cache return to the API's errors. Errors of a context stay.
func storeError(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, objectcache.ErrStopped), errors.Is(err, store.ErrClosed):
		return apierrors.NewServiceUnavailable("the server is shutting down")
	case errors.Is(err, store.ErrUnknownOutcome):
		return apierrors.NewTimeoutError(err.Error(), 1)
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return err
	}
	return apierrors.NewInternalError(err)
}

// serves rejects verbs that are not declared.
func (t Target) serves(verb string) error {
	if t.Resource.HasVerb(t.Subresource, verb) {
		return nil
	}
	if t.Subresource != "" {
		if _, ok := t.Resource.Subresource(t.Subresource); !ok {
			return errNotFoundPath()
		}
	}
	return apierrors.NewMethodNotSupported(t.Resource.GVR.GroupResource(), verb)
}

// key is the object's key behind the resource's prefix.
func (t Target) key() (string, error) {
	if t.Name == "" {
		return "", apierrors.NewBadRequest("Name parameter required.")
	}
	if err := checkSegment("Name", t.Name); err != nil {
		return "", err
	}
	if !t.Resource.Namespaced {
		return t.Name, nil
	}
	if t.Namespace == "" {
		return "", apierrors.NewBadRequest("Namespace parameter required.")
	}
	if err := checkSegment("Namespace", t.Namespace); err != nil {
		return "", err
	}
	return t.Namespace + "/" + t.Name, nil
}

// checkSegment keeps names from leaving their place in a key.
func checkSegment(what, name string) error {
	if msgs := content.IsPathSegmentName(name); len(msgs) > 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("%s parameter invalid: %q: %s", what, name, msgs[0]))
	}
	return nil
}

func parseUint(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}
