package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// impersonate returns the user that the request's headers name, after checking that u may act as it in every respect, and removes the headers.
func (h *Handler) impersonate(ctx context.Context, r *http.Request, u user.Info) (user.Info, error) {
	var extras []string
	for k := range r.Header {
		if strings.HasPrefix(k, authenticationv1.ImpersonateUserExtraHeaderPrefix) {
			extras = append(extras, k)
		}
	}
	name, uid := r.Header.Get(authenticationv1.ImpersonateUserHeader), r.Header.Get(authenticationv1.ImpersonateUIDHeader)
	groups := r.Header.Values(authenticationv1.ImpersonateGroupHeader)
	if name == "" {
		if len(groups) > 0 || len(extras) > 0 || uid != "" {
			as := user.DefaultInfo{UID: uid, Groups: groups, Extra: map[string][]string(nil)}
			return nil, apierrors.NewBadRequest(fmt.Sprintf("requested %#v without impersonating a user name", &as))
		}
		return u, nil
	}
	ctx = request.WithUser(ctx, u)
	act := func(a authorizer.AttributesRecord) error {
		a.Verb, a.APIVersion, a.ResourceRequest = "impersonate", "v1", true
		return h.allow(ctx, a)
	}
	as := &user.DefaultInfo{Name: name, UID: uid, Groups: slices.Clone(groups)}
	if ns, sa, err := serviceaccount.SplitUsername(name); err == nil {
		if err := act(authorizer.AttributesRecord{Resource: "serviceaccounts", Namespace: ns, Name: sa}); err != nil {
			return nil, err
		}
		if len(groups) == 0 {
			as.Groups = serviceaccount.MakeGroupNames(ns)
		}
	} else if err := act(authorizer.AttributesRecord{Resource: "users", Name: name}); err != nil {
		return nil, err
	}
	for _, g := range groups {
		if err := act(authorizer.AttributesRecord{Resource: "groups", Name: g}); err != nil {
			return nil, err
		}
	}
	slices.Sort(extras)
	for _, header := range extras {
		key := strings.ToLower(strings.TrimPrefix(header, authenticationv1.ImpersonateUserExtraHeaderPrefix))
		if k, err := url.PathUnescape(key); err == nil {
			key = k
		}
		for _, v := range r.Header.Values(header) {
			if err := act(authorizer.AttributesRecord{APIGroup: authenticationv1.GroupName, Resource: "userextras", Subresource: key, Name: v}); err != nil {
				return nil, err
			}
			if as.Extra == nil {
				as.Extra = map[string][]string{}
			}
			as.Extra[key] = append(as.Extra[key], v)
		}
		r.Header.Del(header)
	}
	if uid != "" {
		if err := act(authorizer.AttributesRecord{APIGroup: authenticationv1.GroupName, Resource: "uids", Name: uid}); err != nil {
			return nil, err
		}
	}
	for _, k := range []string{
		authenticationv1.ImpersonateUserHeader, authenticationv1.ImpersonateGroupHeader, authenticationv1.ImpersonateUIDHeader,
	} {
		r.Header.Del(k)
	}
	all := user.AllAuthenticated
	if name == user.Anonymous {
		all = user.AllUnauthenticated
	}
	if !slices.Contains(as.Groups, user.AllUnauthenticated) && !slices.Contains(as.Groups, all) {
		as.Groups = append(as.Groups, all)
	}
	return as, nil
}
