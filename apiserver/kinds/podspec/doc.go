// Package podspec holds what every kind with a pod in it shares: the defaulting, validation, update rules
// and warnings of core/v1 PodSpec and PodTemplateSpec.
//
// A kind with a template (Deployment, Job, …) uses
//
//	podspec.DefaultTemplate(&d.Spec.Template)                        // in Kind.Default
//	podspec.PrepareTemplate(ctx, &d.Spec.Template, oldOrNil, path)   // in Kind.PrepareFor*
//	podspec.ValidateTemplate(&d.Spec.Template, path, podspec.OptionsFor(&d.Spec.Template.Spec, oldOrNil))
//	podspec.TemplateWarnings(ctx, &d.Spec.Template, oldOrNil, path)  // in Kind.Warnings
//
// while the Pod kind itself uses DefaultPod, ValidatePod and ValidatePodUpdate.
//
// Validation answers with the paths, types and messages of kube-apiserver. Functions never modify their argument unless
// their name says so (Default, Prepare), never panic, and keep no state.
package podspec
