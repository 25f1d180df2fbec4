// Package defaultingressclass is the admission plugin DefaultIngressClass: Ingresses that name no class get the default one, if there is one.
package defaultingressclass
