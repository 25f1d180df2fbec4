package authorization

import (
	"context"

	authorizationv1 "k8s.io/api/authorization/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

// Options of the group.
type Options struct {
	// Authorizer decides. Default: everything is allowed, as in a server without one.
	Authorizer authorizer.UnconditionalAuthorizer
	// Rules resolve what a user may do in a namespace. Without it, or where it is incomplete, the answer says so.
	Rules authorizer.RuleResolver
}

// Group returns the declarations of API group authorization.k8s.io.
func Group(opts Options) kind.Group {
	virtual := func(kindName, resource string, namespaced bool, create func(context.Context, string, string, client.Object, bool) (runtime.Object, error)) *kind.Virtual {
		return &kind.Virtual{
			GVK:      authorizationv1.SchemeGroupVersion.WithKind(kindName),
			Resource: resource, Singular: resource[:len(resource)-1], Namespaced: namespaced, Create: create,
		}
	}
	return kind.Group{
		Name:        authorizationv1.GroupName,
		AddToScheme: authorizationv1.AddToScheme,
		Versions:    []string{"v1"},
		Virtuals: []*kind.Virtual{
			virtual("LocalSubjectAccessReview", "localsubjectaccessreviews", true, opts.local),
			virtual("SelfSubjectAccessReview", "selfsubjectaccessreviews", false, opts.self),
			virtual("SelfSubjectRulesReview", "selfsubjectrulesreviews", false, opts.rules),
			virtual("SubjectAccessReview", "subjectaccessreviews", false, opts.subject),
		},
	}
}

func (o Options) decide(ctx context.Context, attrs authorizer.AttributesRecord) authorizationv1.SubjectAccessReviewStatus {
	if o.Authorizer == nil {
		return authorizationv1.SubjectAccessReviewStatus{Allowed: true}
	}
	decision, reason, err := o.Authorizer.Authorize(ctx, attrs)
	status := authorizationv1.SubjectAccessReviewStatus{
		Allowed: decision == authorizer.DecisionAllow, Denied: decision == authorizer.DecisionDeny, Reason: reason,
	}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	return status
}

func (o Options) subject(ctx context.Context, _, _ string, obj client.Object, _ bool) (runtime.Object, error) {
	in, ok := obj.(*authorizationv1.SubjectAccessReview)
	if !ok {
		return nil, apierrors.NewBadRequest("not a SubjectAccessReview")
	}
	errs := validateSpec(&in.Spec, field.NewPath("spec"))
	errs = append(errs, validateMeta(in.ObjectMeta)...)
	if len(errs) > 0 {
		return nil, invalid(errs)
	}
	review := in.DeepCopy()
	review.Status = o.decide(ctx, attributesOf(&in.Spec))
	return review, nil
}

func (o Options) local(ctx context.Context, namespace, _ string, obj client.Object, _ bool) (runtime.Object, error) {
	in, ok := obj.(*authorizationv1.LocalSubjectAccessReview)
	if !ok {
		return nil, apierrors.NewBadRequest("not a LocaLocalSubjectAccessReview")
	}
	path := field.NewPath("spec")
	errs := validateSpec(&in.Spec, path)
	meta := in.ObjectMeta
	meta.Namespace = ""
	if !apiequality.Semantic.DeepEqual(metav1.ObjectMeta{}, cleanMeta(meta)) {
		errs = append(errs, field.Invalid(field.NewPath("metadata"), in.ObjectMeta, "must be empty except for namespace"))
	}
	if in.Spec.ResourceAttributes != nil && in.Spec.ResourceAttributes.Namespace != in.Namespace {
		errs = append(errs, field.Invalid(path.Child("resourceAttributes", "namespace"), in.Spec.ResourceAttributes.Namespace, "must match metadata.namespace"))
	}
	if in.Spec.NonResourceAttributes != nil {
		errs = append(errs, field.Invalid(path.Child("nonResourceAttributes"), in.Spec.NonResourceAttributes, "disallowed on this kind of request"))
	}
	if len(errs) > 0 {
		return nil, invalid(errs)
	}
	if namespace != in.Spec.ResourceAttributes.Namespace {
		return nil, apierrors.NewBadRequest("spec.resourceAttributes.namespace must match namespace: " + namespace)
	}
	review := in.DeepCopy()
	review.Status = o.decide(ctx, attributesOf(&in.Spec))
	return review, nil
}

func (o Options) self(ctx context.Context, _, _ string, obj client.Object, _ bool) (runtime.Object, error) {
	in, ok := obj.(*authorizationv1.SelfSubjectAccessReview)
	if !ok {
		return nil, apierrors.NewBadRequest("not a SelfSubjectAccessReview")
	}
	errs := validateAttributes(in.Spec.ResourceAttributes, in.Spec.NonResourceAttributes, field.NewPath("spec"))
	errs = append(errs, validateMeta(in.ObjectMeta)...)
	if len(errs) > 0 {
		return nil, invalid(errs)
	}
	u, ok := request.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	attrs := requestOf(in.Spec.ResourceAttributes, in.Spec.NonResourceAttributes)
	attrs.User = u
	review := in.DeepCopy()
	review.Status = o.decide(ctx, attrs)
	return review, nil
}

func (o Options) rules(ctx context.Context, _, _ string, obj client.Object, _ bool) (runtime.Object, error) {
	in, ok := obj.(*authorizationv1.SelfSubjectRulesReview)
	if !ok {
		return nil, apierrors.NewBadRequest("not a SelfSubjectRulesReview")
	}
	u, ok := request.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	if in.Spec.Namespace == "" {
		return nil, apierrors.NewBadRequest("no namespace on request")
	}
	review := in.DeepCopy()
	review.Status = authorizationv1.SubjectRulesReviewStatus{ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}}
	if o.Rules == nil {
		review.Status.Incomplete = true
		review.Status.EvaluationError = "the server's authorizer does not support user rule resolution"
		return review, nil
	}
	resources, paths, incomplete, err := o.Rules.RulesFor(ctx, u, in.Spec.Namespace)
	for _, r := range resources {
		review.Status.ResourceRules = append(review.Status.ResourceRules, authorizationv1.ResourceRule{
			Verbs: r.GetVerbs(), APIGroups: r.GetAPIGroups(), Resources: r.GetResources(), ResourceNames: r.GetResourceNames(),
		})
	}
	for _, r := range paths {
		review.Status.NonResourceRules = append(review.Status.NonResourceRules, authorizationv1.NonResourceRule{Verbs: r.GetVerbs(), NonResourceURLs: r.GetNonResourceURLs()})
	}
	review.Status.Incomplete = incomplete
	if err != nil {
		review.Status.EvaluationError = err.Error()
	}
	return review, nil
}

// invalid names no kind, as kube-apiserver does not.
func invalid(errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: authorizationv1.GroupName}, "", errs)
}

// cleanMeta drops what clients and the server add to metadata without meaning by it.
func cleanMeta(meta metav1.ObjectMeta) metav1.ObjectMeta {
	meta.ManagedFields = nil
	return meta
}

func validateMeta(meta metav1.ObjectMeta) field.ErrorList {
	if apiequality.Semantic.DeepEqual(metav1.ObjectMeta{}, cleanMeta(meta)) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), meta, "must be empty")}
}
