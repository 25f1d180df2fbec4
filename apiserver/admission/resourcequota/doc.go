// Package resourcequota is the admission plugin ResourceQuota: requests that would use more of a namespace than its ResourceQuotas allow
// are refused.
//
// What is used stands in the status of each quota. The plugin adds a request's use to it with a compare-and-set before the request is
// committed, so that concurrent requests, of other servers too, cannot use the same rest twice. Use that ended (pods deleted or finished, claims
// deleted, requests that failed after admission) is subtracted by the resourcequota controller, which counts anew what a namespace uses; without it a quota
// only ever fills up.
package resourcequota
