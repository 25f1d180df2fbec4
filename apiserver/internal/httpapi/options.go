package httpapi

import (
	"net/http"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/internal/core"
)

func badRequest(err error) error { return apierrors.NewBadRequest(err.Error()) }

func invalidOptions(kind string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", errs)
}

func createOptions(q url.Values) (o metav1.CreateOptions, err error) {
	if len(q) == 0 {
		return o, nil
	}
	if err := metav1.Convert_url_Values_To_v1_CreateOptions(&q, &o, nil); err != nil {
		return o, badRequest(err)
	}
	return o, invalidOptions("CreateOptions", validation.ValidateCreateOptions(&o))
}

func updateOptions(q url.Values) (o metav1.UpdateOptions, err error) {
	if len(q) == 0 {
		return o, nil
	}
	if err := metav1.Convert_url_Values_To_v1_UpdateOptions(&q, &o, nil); err != nil {
		return o, badRequest(err)
	}
	return o, invalidOptions("UpdateOptions", validation.ValidateUpdateOptions(&o))
}

func patchOptions(q url.Values, t types.PatchType) (o metav1.PatchOptions, err error) {
	if err := metav1.Convert_url_Values_To_v1_PatchOptions(&q, &o, nil); err != nil {
		return o, badRequest(err)
	}
	return o, invalidOptions("PatchOptions", validation.ValidatePatchOptions(&o, t))
}

func getOptions(q url.Values) (o metav1.GetOptions, err error) {
	if len(q) == 0 {
		return o, nil
	}
	if err := metav1.Convert_url_Values_To_v1_GetOptions(&q, &o, nil); err != nil {
		return o, badRequest(err)
	}
	return o, nil
}

// deleteOptions come in the body or else in the query.
func (h *Handler) deleteOptions(r *http.Request, q url.Values) (o metav1.DeleteOptions, err error) {
	body, release, err := h.readBody(r)
	if err != nil {
		return o, err
	}
	defer release()
	if len(body) > 0 {
		t, err := bodyType(r)
		if err != nil {
			return o, err
		}
		if o, err = decodeDeleteOptions(t, body); err != nil {
			return o, badRequest(err)
		}
	} else if len(q) > 0 {
		if err := metav1.Convert_url_Values_To_v1_DeleteOptions(&q, &o, nil); err != nil {
			return o, badRequest(err)
		}
	}
	o.IgnoreStoreReadErrorWithClusterBreakingPotential = nil
	return o, invalidOptions("DeleteOptions", validation.ValidateDeleteOptions(&o))
}

// listRequest is a parsed query of a list, watch or deletion of a collection.
type listRequest struct {
	core.ListOptions
	watch   bool
	timeout time.Duration
}

// listOptions parses the query; the core validates what it means. name is that of a request for one object (a watch of it), else empty.
func listOptions(q url.Values, name string, forceWatch bool) (listRequest, error) {
	var in metav1.ListOptions
	if len(q) > 0 {
		if err := metav1.Convert_url_Values_To_v1_ListOptions(&q, &in, nil); err != nil {
			return listRequest{}, badRequest(err)
		}
	}
	in.Watch = in.Watch || forceWatch
	out := listRequest{watch: in.Watch, ListOptions: core.ListOptions{
		ResourceVersion: in.ResourceVersion, ResourceVersionMatch: in.ResourceVersionMatch, Limit: in.Limit, Continue: in.Continue,
		AllowWatchBookmarks: in.AllowWatchBookmarks, SendInitialEvents: in.SendInitialEvents,
	}}
	if in.TimeoutSeconds != nil {
		out.timeout = time.Duration(*in.TimeoutSeconds) * time.Second
	}
	if in.LabelSelector != "" {
		sel, err := labels.Parse(in.LabelSelector)
		if err != nil {
			return listRequest{}, badRequest(err)
		}
		out.LabelSelector = sel
	}
	if in.FieldSelector != "" {
		sel, err := fields.ParseSelector(in.FieldSelector)
		if err != nil {
			return listRequest{}, badRequest(err)
		}
		out.FieldSelector = sel
	}
	if name != "" {
		if out.FieldSelector != nil && !out.FieldSelector.Empty() {
			if v, ok := out.FieldSelector.RequiresExactMatch("metadata.name"); !ok || v != name {
				return listRequest{}, apierrors.NewBadRequest("fieldSelector metadata.name doesn't match requested name")
			}
		}
	}
	return out, nil
}
