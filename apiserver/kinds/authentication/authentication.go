package authentication

import (
	"context"
	"net/http"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

// Options of the group.
type Options struct {
	// Authenticator decides on the tokens of TokenReviews. Without it none is known.
	Authenticator authenticator.Request
	// Audiences are the server's own, for tokens of reviews that name none.
	Audiences authenticator.Audiences
	// Clock is the time in answers. Default: the real one.
	Clock clock.PassiveClock
}

// Group returns the declarations of API group authentication.k8s.io.
func Group(opts Options) kind.Group {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	return kind.Group{
		Name:        authenticationv1.GroupName,
		AddToScheme: authenticationv1.AddToScheme,
		Versions:    []string{"v1"},
		Virtuals: []*kind.Virtual{
			{
				GVK:      authenticationv1.SchemeGroupVersion.WithKind("TokenReview"),
				Resource: "tokenreviews",
				Singular: "tokenreview",
				Create:   opts.reviewToken,
			},
			{
				GVK:      authenticationv1.SchemeGroupVersion.WithKind("SelfSubjectReview"),
				Resource: "selfsubjectreviews",
				Singular: "selfsubjectreview",
				Create:   opts.reviewSelf,
			},
		},
	}
}

func (o Options) reviewToken(ctx context.Context, _, _ string, obj client.Object, _ bool) (runtime.Object, error) {
	in, ok := obj.(*authenticationv1.TokenReview)
	if !ok {
		return nil, apierrors.NewBadRequest("not a TokenReview")
	}
	if in.Namespace != "" {
		return nil, apierrors.NewBadRequest("namespace is not allowed on this type: " + in.Namespace)
	}
	if in.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	review := in.DeepCopy()
	review.Status = authenticationv1.TokenReviewStatus{}
	if o.Authenticator == nil {
		return review, nil
	}
	audiences := authenticator.Audiences(in.Spec.Audiences)
	if len(audiences) == 0 {
		audiences = o.Audiences
	}
	// A request of its own, so that nothing of the reviewer's identity can be mistaken for the token's.
	fake := (&http.Request{Header: http.Header{"Authorization": {"Bearer " + in.Spec.Token}}}).WithContext(authenticator.WithAudiences(context.WithoutCancel(ctx), audiences))
	response, authenticated, err := o.Authenticator.AuthenticateRequest(fake)
	if err != nil {
		review.Status.Error = err.Error()
	}
	if !authenticated || response == nil || response.User == nil {
		return review, nil
	}
	if len(audiences) > 0 && len(response.Audiences) > 0 && len(audiences.Intersect(response.Audiences)) == 0 {
		review.Status.Error = "the token is not for these audiences"
		return review, nil
	}
	review.Status.Authenticated = true
	review.Status.User = userInfo(response.User)
	if len(in.Spec.Audiences) > 0 || len(response.Audiences) > 0 {
		review.Status.Audiences = slices.Clone(response.Audiences)
	}
	return review, nil
}

func userInfo(u user.Info) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: slices.Clone(u.GetGroups())}
	if u.GetName() != user.Anonymous && !slices.Contains(info.Groups, user.AllAuthenticated) && !slices.Contains(info.Groups, user.AllUnauthenticated) {
		info.Groups = append(info.Groups, user.AllAuthenticated)
	}
	for k, v := range u.GetExtra() {
		if info.Extra == nil {
			info.Extra = map[string]authenticationv1.ExtraValue{}
		}
		info.Extra[k] = authenticationv1.ExtraValue(v)
	}
	return info
}

func (o Options) reviewSelf(ctx context.Context, _, _ string, obj client.Object, _ bool) (runtime.Object, error) {
	in, ok := obj.(*authenticationv1.SelfSubjectReview)
	if !ok {
		return nil, apierrors.NewBadRequest("not a SelfSubjectReview")
	}
	u, ok := request.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	review := in.DeepCopy()
	review.CreationTimestamp = metav1.NewTime(o.Clock.Now())
	review.Status = authenticationv1.SelfSubjectReviewStatus{UserInfo: userInfo(u)}
	return review, nil
}
