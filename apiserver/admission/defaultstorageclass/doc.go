// Package defaultstorageclass is the admission plugin DefaultStorageClass: claims that name no class get the default one, if there is one.
package defaultstorageclass
